"""What a query of a user that only reads may consist of. Everything that is not here is refused."""

from __future__ import annotations


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


TABLES = _words("""
    telemetry telemetry_latest telemetry_minute telemetry_hour windows attributes events device_status
    alarms commands dead_letters
""")
"""docs/sql.md: the tables that are a contract."""

SYSTEM_TABLES = _words("tables columns databases functions settings one numbers data_type_families")
"""What clients and BI tools ask of `system` when they connect. `settings` is read by clickhouse-connect."""

TABLE_FUNCTIONS = _words("""
    numbers numbers_mt zeros zeros_mt generateseries generate_series values sqlstandardvalues
""")
"""Table functions that touch no file, network, process or other table; in lower case."""

SELECTS = _words("SelectWithUnionQuery SelectIntersectExceptQuery SelectQuery")

STATEMENTS = SELECTS | _words("""
    Explain DescribeQuery ShowTables ShowColumns ShowFunctions ShowCreateTableQuery ShowCreateViewQuery
    ExistsTableQuery ExistsViewQuery ExistsDatabaseQuery
""")
"""Kinds of nodes that may be the root of a query's AST."""

NODES = STATEMENTS | _words("""
    ExpressionList Subquery TablesInSelectQuery TablesInSelectQueryElement TableExpression TableIdentifier Identifier
    TableJoin ArrayJoin SampleRatio Function Literal Asterisk QualifiedAsterisk ColumnsRegexpMatcher
    ColumnsListMatcher QualifiedColumnsRegexpMatcher QualifiedColumnsListMatcher ColumnsTransformerList
    ColumnsExceptTransformer ColumnsReplaceTransformer ColumnsReplaceTransformer::Replacement OrderByElement
    InterpolateElement WindowListElement WindowDefinition WithElement Set
""")
"""Kinds of nodes that may occur. `ColumnsApplyTransformer` may not: the tree does not show its function."""

EXPLAINS = frozenset(
    {"EXPLAIN", "EXPLAIN AST", "EXPLAIN SYNTAX", "EXPLAIN QUERY TREE", "EXPLAIN PIPELINE", "EXPLAIN ESTIMATE"}
)

AGGREGATES = "Aggregate Functions"

CATEGORIES = frozenset(
    {"Null", "Comparison", "Distance", "String", "Tuple", "Geo", "Encoding", "String Search", AGGREGATES, "Arrays"}
    | {"Logical", "String Splitting", "Mathematical", "Time Window", "Dates and Times", "URL", "Hash", "Random Number"}
    | {"Bit", "IP Address", "Map", "UUID", "Conditional", "Bitmap", "Financial", "Type Conversion", "Arithmetic"}
    | {"Geo Polygon", "JSON", "Rounding", "String Replacement", "NumericIndexedVector", "Encryption", "QBit"}
)
"""Categories of `system.functions` in which every function only computes."""

FUNCTIONS = _words("""
    _cast lambda bar blocknumber bytesize countdigits currentdatabase currentuser currentschemas displayname
    defaultvalueofargumenttype defaultvalueoftypename digits dumpcolumnstructure errorcodetoname finalizeaggregation
    formatreadabledecimalsize formatreadablequantity formatreadablesize formatreadabletimedelta getsetting
    getsettingordefault getsizeofenumtype getsubcolumn globalvariable hostname identity ignore initializeaggregation
    isconstant isdecimaloverflow materialize neighbor parsereadablesize parsereadablesizeornull
    parsereadablesizeorzero parsetimedelta pgtableisvisible queryid rownumberinallblocks rownumberinblock
    runningaccumulate runningdifference runningdifferencestartingwithfirstvalue throwif tocolumntypename totypename
    transform variantelement varianttype version visiblewidth minsamplesizecontinuous minsamplesizeconversion
    grouping row_number rank dense_rank percent_rank cume_dist ntile lag lead laginframe leadinframe
    first_value last_value nth_value nonnegativederivative exists
""")
"""Harmless functions of categories that also hold others (`file`, `joinGet`, `sleep`, `getMacro`), or of none."""
