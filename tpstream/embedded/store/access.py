"""What a user that only reads may ask, decided on ClickHouse's own parse of the query.

The front has ClickHouse format the query (one statement, comments gone), has it explain the
AST of that, lets `Policy.check` look at the tree, and runs the formatted text, so that what
is looked at is what is run. Everything that is not known to be harmless is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from tpstream.embedded.store.faults import ACCESS_DENIED, fault
from tpstream.embedded.store.harmless import (
    AGGREGATES,
    CATEGORIES,
    EXPLAINS,
    FUNCTIONS,
    NODES,
    SELECTS,
    STATEMENTS,
    SYSTEM_TABLES,
    TABLE_FUNCTIONS,
    TABLES,
)


@dataclass(slots=True)
class Node:
    """A node of an AST: its kind, the rest of its line, and its children."""

    kind: str
    label: str
    children: list[Node] = field(default_factory=list)

    def walk(self) -> Iterator[Node]:
        """This node and all below it."""
        yield self
        for child in self.children:
            yield from child.walk()


_LINE = re.compile(r"( *)([^ ]+)(?: (.*?))??(?: \(children (\d+)\))?")


def parse(tree: str) -> Node:
    """The tree that EXPLAIN AST prints. Raises Fault where a line does not fit (a name with a line break)."""
    stack: list[tuple[Node, int]] = []
    root: Node | None = None
    for line in tree.removesuffix("\n").split("\n"):
        found = _LINE.fullmatch(line)
        if found is None:
            raise _refused("a name in it that cannot be told from the structure")
        depth, node = len(found[1]), Node(found[2], found[3] or "")
        while len(stack) > depth:
            _complete(*stack.pop())
        if len(stack) != depth or (depth == 0) != (root is None):
            raise _refused("a name in it that cannot be told from the structure")
        if stack:
            stack[-1][0].children.append(node)
        else:
            root = node
        stack.append((node, int(found[4] or 0)))
    while stack:
        _complete(*stack.pop())
    if root is None:
        raise _refused("nothing")
    return root


def _complete(node: Node, declared: int) -> None:
    if len(node.children) != declared:
        raise _refused("a name in it that cannot be told from the structure")


def _refused(what: str) -> Exception:
    return fault(
        ACCESS_DENIED, f"bi: Not enough privileges. The query has {what}; bi may only read the tables of docs/sql.md"
    )


@dataclass(frozen=True, slots=True)
class Policy:
    """What there is in the engine now, and what of it a user that only reads may touch."""

    database: str
    databases: frozenset[str]
    """Names of all databases."""
    tables: frozenset[str]
    """Names of all tables and views of `database`."""
    functions: Mapping[str, str]
    """Category of each function by its name in lower case; aliases have that of their function."""
    combinators: tuple[str, ...]
    """Suffixes of aggregate functions (`If`, `OrNull`, …) in lower case."""

    def check(self, tree: str) -> None:
        """Return where the query of this EXPLAIN AST is allowed. Raises Fault 497 with what is not."""
        root = parse(tree)
        if root.kind not in STATEMENTS:
            raise _refused(f"the statement {root.kind}")
        for node in root.walk():
            self._node(node)
        if root.kind.startswith("ShowCreate") or root.kind in ("ExistsTableQuery", "ExistsViewQuery"):
            database, _, table = root.label.partition(" ")
            self._name(f"{database}.{table}" if database else table, True)

    def _node(self, node: Node) -> None:
        if node.kind not in NODES:
            raise _refused(node.kind)
        if node.kind in STATEMENTS and any(c.kind == "Literal" for c in node.children) and node.kind != "SelectQuery":
            raise _refused("INTO OUTFILE")
        if node.kind == "Explain":
            if node.label not in EXPLAINS or not any(c.kind in SELECTS for c in node.children):
                raise _refused(f"{node.label} of something else than a SELECT")
        elif any(c.kind == "Set" for c in node.children):
            raise _refused("SETTINGS")
        if node.kind == "TableExpression":
            for child in node.children:
                if child.kind == "Function" and (name := _bare(child.label)).lower() not in TABLE_FUNCTIONS:
                    raise _refused(f"the table function {name}")
        elif node.kind == "TableIdentifier":
            self._name(_bare(node.label), True)
        elif node.kind == "Identifier":
            self._name(_bare(node.label), False)
        elif node.kind == "Function":
            self._function(_bare(node.label))

    def _name(self, name: str, table: bool) -> None:
        """Any name may turn out to be a table (`x IN name`), so all are looked at in the same way."""
        first, *rest = name.split(".")
        if rest and (table or first in self.databases):
            # A column may follow: database.table.column.
            second = ".".join(rest) if table else rest[0]
            allowed = (first == self.database and second in TABLES) or (first == "system" and second in SYSTEM_TABLES)
        else:
            # A name alone is a table of the database, or else a column or a CTE.
            allowed = name in TABLES or name not in self.tables
        if not allowed:
            raise _refused(f"the table {name}")

    def _function(self, name: str) -> None:
        small = name.lower()
        harmless = small in TABLE_FUNCTIONS or small in FUNCTIONS or self.functions.get(small) in CATEGORIES
        if not harmless and not self._aggregates(small):
            raise _refused(f"the function {name}")

    def _aggregates(self, name: str) -> bool:
        """Whether it is an aggregate function, with any combinators (`sumIf`, `avgOrNull`) behind it."""
        if self.functions.get(name) == AGGREGATES:
            return True
        return any(
            name.endswith(c) and self._aggregates(name[: -len(c)]) for c in self.combinators if len(name) > len(c)
        )


def _bare(label: str) -> str:
    return label.split(" (alias ", 1)[0]
