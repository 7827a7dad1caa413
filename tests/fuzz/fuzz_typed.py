"""What people type: search text, filters, predicates."""

from __future__ import annotations

import random
from functools import cache
from pathlib import Path

import pyarrow as pa

from pipeline.curate.predicate import FUNCTIONS, parse_predicate
from pipeline.dataset.dataset_schema import CURATED_SCHEMA
from pipeline.dataset.phrase_rows import batch_schema
from pipeline.view import ViewConfig, server
from tests.fuzz.corpus import made
from tests.fuzz.fuzz_datasets import viewed
from tests.fuzz.mutations import TEXTS
from tests.fuzz.verdicts import judged


@cache
def _viewer() -> server.Viewer:
    viewer = server.Viewer(ViewConfig(str(made().output), threads=1))
    viewer.fill()
    return viewer


def search(rng: random.Random, _: Path) -> None:
    """Search text and filters of the viewer, as URLs bring them."""
    names = ("unit", "phrase", "key", "shard", "status", "target", "verdict", "min_score", "max_area", "sort")
    words = (
        *TEXTS,
        "images",
        "masks",
        "asc",
        "0.5",
        '"a red',
        "a red circle",
        "random",
        "score",
        "-1",
        "1e309",
        "x" * 9000,
    )
    given = {name: rng.choice(words) for name in rng.sample(names, rng.randrange(1, 5))}
    if rng.random() < 0.5:
        given["phrase"] = "".join(rng.choice(words) for _ in range(3))[:2000]
    for handler in (server._cards, server._histogram, server._phrases):
        more = {"measure": rng.choice(words)} if handler is server._histogram and rng.random() < 0.3 else {}
        parameters = {"text": given.get("phrase", "")} if handler is server._phrases else given
        viewed(_viewer(), handler, {}, **parameters, **more)


_WORDS = (
    *(
        "score",
        "area",
        "phrase",
        "caption",
        "bbox",
        "width",
        "and",
        "or",
        "not",
        "in",
        "between",
        "is",
        "null",
        "like",
    ),
    *(
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        ",",
        ";",
        "+",
        "-",
        "*",
        "/",
        "%",
        "||",
        "=",
        "<",
        ">",
        "::",
        ".",
        "->",
        "--",
        "/*",
    ),
    *(
        "'a'",
        "'",
        '"',
        "$$",
        "1",
        "0",
        "1e400",
        "9" * 40,
        "case",
        "when",
        "end",
        "cast",
        "as",
        "varchar",
        "interval",
    ),
    *(
        "select",
        "from",
        "union",
        "exists",
        "over",
        "lambda x:",
        "?",
        "$1",
        "@",
        "\x00",
        "\ud800",
        "é",
        "😀",
        "\\",
    ),
    *(
        "read_csv('/etc/passwd')",
        "(" * 3000,
        "not " * 3000,
        "repeat('x', 1000000000)",
        "range(1000000000000)",
    ),
    *(
        "list_filter(bbox, lambda x: x > 1)",
        "getenv('HOME')",
        "score > 0.5",
        "regexp_matches(phrase, '(a+)+$')",
    ),
)
_ROWS = pa.table(
    {
        "score": pa.array([0.5, None], pa.float32()),
        "area": pa.array([1, 500], pa.int64()),
        "phrase": ["a dog", "a" * 40 + "!"],
        "caption": ["a", None],
        "bbox": pa.array([[0, 0, 1, 1], [1, 2, 6, 7]], pa.list_(pa.float32(), 4)),
        "width": pa.array([7, 8], pa.int32()),
    }
)


def predicate(rng: random.Random, _: Path) -> None:
    """`--where`: words of SQL in any order, and every function with any arguments."""
    if rng.random() < 0.5:
        text = " ".join(rng.choice(_WORDS) for _ in range(rng.randrange(1, 9)))
    else:
        words = ("score", "area", "phrase", "bbox", "null", "1", "-1", "'x'", "1000000000000", "[1]", "'{}'")
        given = ", ".join(rng.choice(words) for _ in range(rng.randrange(4)))
        call = f"{rng.choice(sorted(FUNCTIONS))}({given})"
        text = rng.choice((f"{call} is null", f"{call} = {rng.choice(words)}", call))

    def use() -> None:
        parsed = parse_predicate(text, batch_schema(CURATED_SCHEMA))
        if set(parsed.columns) <= set(_ROWS.column_names):
            parsed(_ROWS)

    judged(use, "--where")
