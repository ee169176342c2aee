"""The policy on trees as EXPLAIN AST prints them; the queries themselves are in tests/e2e/test_bi_refusals.py."""

import pytest

from tpstream.embedded.store.access import Policy, parse
from tpstream.embedded.store.faults import ACCESS_DENIED, Fault

POLICY = Policy(
    "default",
    frozenset({"default", "system", "INFORMATION_SCHEMA"}),
    frozenset({"telemetry", "telemetry_rows"}),
    {"sum": "Aggregate Functions", "plus": "Arithmetic", "file": "Other", "dictget": "Dictionary"},
    ("if", "ornull"),
)


def select(expression="Literal UInt64_1", table="TableIdentifier telemetry"):
    return f"""SelectWithUnionQuery (children 1)
 ExpressionList (children 1)
  SelectQuery (children 2)
   ExpressionList (children 1)
    {expression}
   TablesInSelectQuery (children 1)
    TablesInSelectQueryElement (children 1)
     TableExpression (children 1)
      {table}
"""


@pytest.mark.parametrize(
    "tree",
    [
        select(),
        select(table="TableIdentifier default.telemetry (alias t)"),
        select(table="TableIdentifier a_cte"),
        select("Function sumIf"),
        select("Function SUMOrNullIf (alias x)"),
        select("Identifier default.telemetry.device"),
        select("Identifier t.device"),
        "ShowTables\n",
        "ExistsTableQuery  telemetry (children 1)\n Identifier telemetry\n",
    ],
)
def test_allowed(tree):
    POLICY.check(tree)


@pytest.mark.parametrize(
    "tree",
    [
        select(table="TableIdentifier telemetry_rows"),
        select(table="TableIdentifier system.processes"),
        select(table="TableIdentifier nobody.telemetry"),
        select("Identifier system.processes"),
        select("Identifier telemetry_rows"),
        select("Function file"),
        select("Function dictGet"),
        select("Function plusIf"),
        select("Function unheardOf"),
        select("ColumnsApplyTransformer"),
        select("SomethingNew"),
        "DropQuery  t\n",
        "ShowTables (children 1)\n Literal '/x'\n",
        "ShowProcesslistQuery\n",
        "Explain EXPLAIN (children 1)\n InsertQuery \n",
        select() + "ShowTables\n",
        select().replace("(children 2)", "(children 3)"),
        select().replace("     TableExpression", "       TableExpression"),
        "",
    ],
)
def test_refused(tree):
    with pytest.raises(Fault) as caught:
        POLICY.check(tree)
    assert caught.value.code == ACCESS_DENIED


def test_the_tree_is_read_as_printed():
    root = parse(select("Identifier a (alias b c) (children 0)"))
    assert [node.kind for node in root.walk()][:4] == [
        "SelectWithUnionQuery",
        "ExpressionList",
        "SelectQuery",
        "ExpressionList",
    ]
    assert {node.label for node in root.walk() if node.kind == "Identifier"} == {"a (alias b c)"}
