"""User-supplied SQL predicates, evaluated in a sandbox.

The expression is parsed first: one expression, of columns, constants, operators and functions; no
subquery, no window, no aggregate. It runs in a DuckDB of its own, without any access to files, the
network, extensions, or the variables of this process, over the rows that are handed to it.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import duckdb
import numpy as np
import pyarrow as pa

from pipeline.dataset.phrase_index import NOTHING_OUTSIDE
from sspsam.errors import ConfigError

#: What a parsed expression may be made of, as DuckDB names it.
_ALLOWED: Final = frozenset(
    "COLUMN_REF CONSTANT COMPARISON CONJUNCTION OPERATOR FUNCTION BETWEEN CASE CAST LAMBDA LAMBDA_REF"  # noqa: SIM905
    " COLLATE TYPE".split()
)

_FUNCTION_NAMES: Final = """
+ - * / // % ** ^ & | ~ << >> || @ ~~ !~~ ~~* !~~* ~~~ ^@ like_escape not_like_escape ilike_escape
not_ilike_escape regexp_full_match regexp_matches regexp_extract regexp_extract_all regexp_replace
regexp_split_to_array concat concat_ws lower upper lcase ucase length len strlen char_length
character_length contains starts_with ends_with prefix suffix trim ltrim rtrim left right substr substring
strpos instr position split string_split str_split string_to_array replace reverse strip_accents translate
ascii unicode ord chr nfc_normalize levenshtein editdist3 hamming mismatches jaccard jaro_similarity
jaro_winkler_similarity damerau_levenshtein abs sign ceil ceiling floor round round_even trunc sqrt cbrt
exp ln log log2 log10 pow power greatest least pi sin cos tan asin acos atan atan2 degrees radians isnan
isinf isfinite mod add subtract multiply divide gcd lcm xor bit_count ifnull list_contains list_has
array_contains array_has list_has_any array_has_any list_has_all array_has_all array_length list_extract
list_element array_extract struct_extract struct_extract_at array_slice list_slice list_filter filter
array_filter list_transform apply list_apply array_transform array_apply list_sum list_min list_max
list_avg list_count list_first list_last list_bool_and list_bool_or list_median list_any_value
list_distinct array_distinct list_unique array_unique list_sort array_sort list_reverse_sort list_position
list_indexof array_position array_indexof list_concat array_concat list_cat list_value list_reduce reduce
array_reduce flatten hash md5 sha256
"""
#: The functions and operators, as DuckDB names them, that an expression may use: of the row alone, the same
#: in every run, and without a look at files, settings or the clock.
FUNCTIONS: Final = frozenset(_FUNCTION_NAMES.split())


@dataclass(frozen=True)
class Predicate:
    """One checked expression. `columns`: those of `schema` that it reads."""

    expression: str
    columns: tuple[str, ...]

    def __call__(self, rows: pa.Table) -> np.ndarray:
        """(N,) bool: where the expression is true for the N rows; null counts as false.

        rows: a table with at least `columns`. Raises ConfigError if a value does not fit, as in a
        cast of text to a number.
        """
        numbered = rows.select(self.columns).append_column(
            _ROW, pa.array(np.arange(rows.num_rows, dtype=np.int64))
        )
        try:
            kept = _matching(numbered, self.expression)
        except duckdb.Error as error:
            raise ConfigError(f"--where {self.expression!r}: {_reason(error)}") from error
        answer = np.zeros(rows.num_rows, dtype=bool)
        answer[kept] = True
        return answer


_ROW: Final = "__row__"
_MOST_BRACKETS: Final = 500


def parse_predicate(expression: str, schema: pa.Schema) -> Predicate:
    """Check an expression over the columns of `schema`. Raises ConfigError that says what to mend.

    The check includes names and types, by running it over no rows at all.
    """
    nodes = _parse(expression)
    for node in nodes:
        if node.get("class") not in _ALLOWED:
            raise ConfigError(
                f"--where {expression!r}: only columns, constants, operators and functions;"
                f" {str(node.get('class', 'that')).lower()} is not allowed"
            )
        name = str(node.get("function_name", "")).lower()
        if name and name not in FUNCTIONS:
            near = difflib.get_close_matches(name, FUNCTIONS, 1)
            hint = f". Did you mean {near[0]}?" if near else "; docs/curation.md says which are"
            raise ConfigError(f"--where {expression!r}: {name}() is not allowed{hint}")
    columns = tuple(_columns(nodes, expression, schema))
    predicate = Predicate(expression, columns)
    nothing = pa.schema([schema.field(name) for name in columns]).empty_table()
    predicate(nothing)
    kind = _type_of(expression, nothing)
    if kind != "BOOLEAN":
        raise ConfigError(f"--where {expression!r}: is {kind}, not true or false; compare it with something")
    return predicate


def _parse(expression: str) -> list[dict[str, Any]]:
    """Every node of the expression as DuckDB's own parser sees it."""
    text = f"SELECT 1 WHERE (\n{expression}\n)"
    if not expression.strip():
        raise ConfigError("--where: the expression is empty")
    if expression.count("(") > _MOST_BRACKETS:  # 3,000 that do not close cost DuckDB's parser 12 s and 1.5 GB
        raise ConfigError(f"--where {expression[:200]!r}...: more than {_MOST_BRACKETS} opening brackets")
    try:
        expression.encode()
    except UnicodeEncodeError as error:
        raise ConfigError(f"--where {expression!r}: not UTF-8 text") from error
    with _sandbox().cursor() as connection:
        ((serialised,),) = connection.execute("SELECT json_serialize_sql(?)", [text]).fetchall()
    parsed = json.loads(serialised)
    if parsed["error"]:
        message = parsed.get("error_message", "not SQL")
        raise ConfigError(f"--where {expression!r}: {message}")
    statements = parsed["statements"]
    node = statements[0]["node"]
    plain = SELECT_PARTS.isdisjoint(key for key, value in node.items() if value)
    if len(statements) != 1 or node.get("type") != "SELECT_NODE" or not plain:
        raise ConfigError(f"--where {expression!r}: give one expression, not statements")
    return list(_nodes(node["where_clause"]))


#: Parts of a SELECT that are empty unless the expression closed its bracket and went on.
SELECT_PARTS: Final = frozenset(
    ["group_expressions", "group_sets", "having", "qualify", "sample", "modifiers"]
)


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    if isinstance(tree, dict):
        if "class" in tree:
            yield tree
        for child in tree.values():
            yield from _nodes(child)
    elif isinstance(tree, list):
        for child in tree:
            yield from _nodes(child)


def _columns(nodes: Sequence[dict[str, Any]], expression: str, schema: pa.Schema) -> Iterator[str]:
    """The columns of `schema` that the expression names, each once."""
    by_folded = {name.casefold(): name for name in schema.names}
    parameters = {
        name.casefold()
        for node in nodes
        if node["class"] == "LAMBDA"
        for side in _nodes(node.get("lhs"))
        for name in side.get("column_names", [])
    }
    seen = set()
    for node in nodes:
        if node["class"] != "COLUMN_REF":
            continue
        name = node["column_names"][0]
        folded = name.casefold()
        if folded in by_folded and by_folded[folded] not in seen:
            seen.add(by_folded[folded])
            yield by_folded[folded]
        elif folded not in by_folded and folded not in parameters:
            near = difflib.get_close_matches(name, schema.names, 1)
            hint = f" Did you mean {near[0]}?" if near else ""
            raise ConfigError(
                f"--where {expression!r}: no column {name!r}.{hint} Columns: {', '.join(schema.names)}"
            )


def _matching(rows: pa.Table, expression: str) -> np.ndarray:
    # A line end after the expression, so that a comment in it cannot swallow the bracket.
    query = f"SELECT {_ROW} FROM rows WHERE (\n{expression}\n)"
    with _sandbox().cursor() as connection:
        connection.register("rows", rows)
        found = connection.execute(query).fetchnumpy()
        connection.unregister("rows")
    return np.asarray(found[_ROW], dtype=np.int64)


def _type_of(expression: str, rows: pa.Table) -> str:
    """The SQL type of a checked expression."""
    with _sandbox().cursor() as connection:
        connection.register("rows", rows.append_column(_ROW, pa.array([], pa.int64())))
        answer = connection.execute(f"DESCRIBE SELECT (\n{expression}\n) FROM rows").fetchall()
    return str(answer[0][1])


@lru_cache(maxsize=1)
def _sandbox() -> duckdb.DuckDBPyConnection:
    """A DuckDB that can reach nothing outside of itself, and whose settings stay so."""
    return duckdb.connect(
        config={
            **NOTHING_OUTSIDE,
            "memory_limit": "512MB",
            "max_expression_depth": 200,  # Python reads the parsed tree too, and nests less deep
            "threads": 1,
            "lock_configuration": True,
        }
    )


def _reason(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
