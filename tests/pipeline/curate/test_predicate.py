"""SQL of people: what it may say, what it may not, and in which words it is refused."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from pipeline.curate.predicate import parse_predicate
from pipeline.dataset.dataset_schema import CURATED_SCHEMA
from pipeline.dataset.phrase_rows import batch_schema
from sspsam.errors import ConfigError

SCHEMA = batch_schema(CURATED_SCHEMA)


@pytest.mark.parametrize(
    ("expression", "columns", "answer"),
    [
        ("score > 0.8 and area > 400", {"score", "area"}, [False, True, False]),
        ("SCORE > .1 -- and a comment", {"score"}, [True, True, False]),
        ("score is null or phrase ilike '%DOG%'", {"score", "phrase"}, [True, False, True]),
        (
            "case when area between 1 and 3 then score > 0.4 else false end",
            {"area", "score"},
            [True, False, False],
        ),
        ("len(list_filter(bbox, lambda side: side > 5)) = 2", {"bbox"}, [False, True, False]),
        ('"end" - start = 3', {"end", "start"}, [True, False, False]),
        (
            "regexp_matches(caption, '^a') and cast(area as varchar) = '1'",
            {"caption", "area"},
            [True, False, False],
        ),
        ("true", set(), [True, True, True]),
    ],
)
def test_expressions_over_columns(expression: str, columns: set[str], answer: list[bool]) -> None:
    rows = pa.table(
        {
            "score": pa.array([0.5, 0.9, None], pa.float32()),
            "area": pa.array([1, 500, 3], pa.int64()),
            "phrase": ["a dog", "cat", None],
            "caption": ["a", "b", "c"],
            "start": pa.array([0, 1, None], pa.int32()),
            "end": pa.array([3, 2, 5], pa.int32()),
            "bbox": pa.array([[0, 0, 1, 1], [1, 2, 6, 7], [0] * 4], pa.list_(pa.float32(), 4)),
        }
    )
    predicate = parse_predicate(expression, SCHEMA)
    assert set(predicate.columns) == columns
    assert predicate(rows).tolist() == answer


@pytest.mark.parametrize(
    ("expression", "says"),
    [
        ("", "empty"),
        ("scroe > 1", "Did you mean score.*Columns: key, shard"),
        ("score >", "syntax error"),
        ("score > 0.5; DROP TABLE images", "syntax error"),
        ("1 = 1) ; select (2", "one expression"),
        ("1 = 1) group by (1", "one expression"),
        ("true) order by (1", "one expression"),
        ("score > (select 1)", "subquery is not allowed"),
        ("exists(from read_text('/etc/passwd'))", "subquery is not allowed"),
        ("row_number() over () > 3", "window is not allowed"),
        ("sum(area) > 3", r"sum\(\) is not allowed"),
        ("columns('.*') > 1", "star is not allowed"),
        ("random() < 0.5", r"random\(\) is not allowed"),
        ("current_setting('secret_directory') = ''", "not allowed"),
        ("read_text('/etc/passwd') is not null", "not allowed"),
        ("getenv('HOME') = ''", "not allowed"),
        ("glob('/etc/*') is not null", "not allowed"),
        ("now() > start", "not allowed"),
        ("len(repeat('x', 1000000000)) > 1", "not allowed"),
        ("regexp_matchs(phrase, 'a')", r"not allowed\. Did you mean regexp_matches\?"),
        ("'x'", "is VARCHAR, not true or false"),
        ("area", "is BIGINT, not true or false"),
        ("no_such_function(area)", "not allowed"),
        ("score > ?", "not allowed"),
    ],
)
def test_what_is_refused_and_why(expression: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        parse_predicate(expression, SCHEMA)


def test_a_value_that_does_not_fit_names_the_expression() -> None:
    predicate = parse_predicate("cast(phrase as integer) > 3", SCHEMA)
    with pytest.raises(ConfigError, match=r"--where 'cast.*'dog'"):
        predicate(pa.table({"phrase": ["4", "dog"]}))
    assert predicate(pa.table({"phrase": ["4", "2"]})).dtype == np.bool_
