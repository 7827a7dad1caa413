"""Filters and order of the grid as one frozen dataclass, and the SQL that answers them.

Signals and area count for masks that have a target only, because readers treat a mask without one
as empty; with `target="no"` they count for those without.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from pipeline.dataset.phrase_index import Index, fold
from sspsam.errors import ConfigError
from sspsam.schema import ADDED_SIGNALS, SIGNALS, STATUSES

#: What masks can be filtered and sorted by.
MEASURES: Final = (*SIGNALS, *ADDED_SIGNALS, "area", "area_fraction")
VERDICT_FILTERS: Final = ("accept", "reject", "flag", "none", "any")
MAX_PAGE: Final = 200

_CHOICES: Final[dict[str, tuple[str, ...]]] = {
    "unit": ("images", "masks"),
    "status": ("", *STATUSES),
    "target": ("", "yes", "no"),
    "verdict": ("", *VERDICT_FILTERS),
    "sort": ("order", "random", *MEASURES),
    "direction": ("asc", "desc"),
}


@dataclass(frozen=True)
class Query:
    """What the grid shows. Empty strings and an empty `ranges` filter nothing."""

    unit: str = "images"  # one card an image, or one a mask
    phrase: str = ""  # words that a phrase holds; "in double quotes": the whole phrase
    key: str = ""  # part of the image's key
    shard: str = ""
    status: str = ""
    target: str = ""
    verdict: str = ""  # "none": not reviewed; "any": reviewed
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)  # measure: (low, high)
    sort: str = "order"
    direction: str = "asc"
    offset: int = 0
    limit: int = 48

    @classmethod
    def parse(cls, parameters: Mapping[str, str]) -> Query:
        """From URL parameters; `min_score=0.5` makes a range. Raises ConfigError naming one."""
        values: dict[str, Any] = {}
        ranges: dict[str, list[float]] = {}
        for name, text in parameters.items():
            bound, _, measure = name.partition("_")
            if name in _CHOICES:
                if text not in _CHOICES[name]:
                    raise ConfigError(f"{name}={text!r}: choose from {', '.join(_CHOICES[name])}")
                values[name] = text
            elif name in ("phrase", "key", "shard"):
                values[name] = text[:500]
            elif name in ("offset", "limit"):
                high = MAX_PAGE if name == "limit" else 2**40
                values[name] = int(_number(name, text, name == "limit", high))
            elif bound in ("min", "max") and measure in MEASURES:
                if text:
                    pair = ranges.setdefault(measure, [-math.inf, math.inf])
                    pair[bound == "max"] = _number(name, text, -math.inf, math.inf)
            else:
                raise ConfigError(f"no filter is called {name!r}")
        return cls(**values, ranges={name: (low, high) for name, (low, high) in ranges.items()})


@dataclass(frozen=True)
class Hit:
    """One card: the image's id, its masks that match, and what it was sorted by."""

    image: int
    positions: tuple[int, ...]  # of the matching masks among the image's annotations
    value: float | None


def count_hits(index: Index, query: Query) -> int:
    """How many cards all pages hold together."""
    sql, parameters = _select(query)
    return int(index.query(f"select count(*) from ({sql})", parameters)[0][0])


def find_hits(index: Index, query: Query) -> list[Hit]:
    """The cards of one page, in order."""
    sql, parameters = _select(query)
    order = f"value {query.direction} nulls last, id, position"
    if query.sort == "order":
        order = f"id {query.direction}, position"
    elif query.sort == "random":
        order = "hash(id, position), id, position"
    rows = index.query(f"{sql} order by {order} limit {query.limit} offset {query.offset}", parameters)
    if query.unit == "masks":
        return [Hit(image, (position,), value) for image, position, value in rows]
    positions = _matching_positions(index, query, [row[0] for row in rows])
    return [Hit(image, positions.get(image, ()), value) for image, _, value in rows]


def _select(query: Query) -> tuple[str, list[Any]]:
    """SELECT of (id, position, value), a row a card, without order; and its parameters."""
    of_mask, mask_parameters = _mask_conditions(query)
    of_image, image_parameters = _image_conditions(query)
    parameters = [*mask_parameters, *image_parameters]
    of_masks = f" where {' and '.join(of_mask)}" if of_mask else ""
    of_images = f" where {' and '.join(of_image)}" if of_image else ""
    measure = query.sort if query.sort in MEASURES else "null::float"
    counted = "has_target" if query.target != "no" else "not has_target"
    if query.unit == "masks":
        columns = f"image_id, position, phrase_id, case when {counted} then {measure} end as value"
        inner, join = f"select {columns} from masks{of_masks}", "join"
    elif of_mask or query.sort in MEASURES:
        best = "min" if query.direction == "asc" else "max"
        value = f"{best}({measure}) filter ({counted})"
        inner = f"select image_id, 0 as position, {value} as value from masks{of_masks} group by 1"
        join = "join" if of_mask else "left join"
    else:
        return f"select id, 0 as position, null::float as value from images i{of_images}", parameters
    sql = f"select i.id, m.position, m.value from images i {join} ({inner}) m on m.image_id = i.id"
    return sql + of_images, parameters


def _mask_conditions(query: Query) -> tuple[list[str], list[Any]]:
    conditions: list[str] = []
    parameters: list[Any] = []
    if query.phrase.strip():
        matches, values = _phrase_conditions(query.phrase)
        conditions.append(f"phrase_id in (select phrase_id from phrases where {matches})")
        parameters += values
    if query.target:
        conditions.append("has_target" if query.target == "yes" else "not has_target")
    elif query.ranges:
        conditions.append("has_target")
    for measure, (low, high) in query.ranges.items():
        conditions.append(f"{measure} between ? and ?")
        parameters += [low, high]
    return conditions, parameters


def _phrase_conditions(text: str) -> tuple[str, list[str]]:
    """Every word (or part in double quotes) is held; a text all in double quotes is the phrase."""
    parts = [quoted or word for quoted, word in re.findall(r'"([^"]+)"|([^\s"]+)', text)]
    if len(parts) == 1 and text.strip() == f'"{parts[0]}"':
        return f"folded = {fold('?')}", parts
    return " and ".join(f"contains(folded, {fold('?')})" for _ in parts) or "true", parts


def _image_conditions(query: Query) -> tuple[list[str], list[Any]]:
    conditions: list[str] = []
    parameters: list[Any] = []
    for column, value in (("shard", query.shard), ("status", query.status)):
        if value:
            conditions.append(f"i.{column} = ?")
            parameters.append(value)
    if query.key:
        conditions.append('contains(i."key", ?)')
        parameters.append(query.key)
    if query.verdict:
        conditions.append(_verdict_condition(query))
    return conditions, parameters


def _verdict_condition(query: Query) -> str:
    """A card's verdict: any in the image, or, of a mask, its phrase's or its whole image's."""
    negate = "not " if query.verdict == "none" else ""
    same = "true" if query.verdict in ("any", "none") else f"verdict = '{query.verdict}'"
    if query.unit == "images":
        return f"i.id {negate}in (select image_id from verdicts where {same})"
    return (
        f"{negate}(m.image_id in (select image_id from verdicts where phrase_id < 0 and {same})"
        " or (m.image_id, m.phrase_id) in"
        f" (select (image_id, phrase_id) from verdicts where phrase_id >= 0 and {same}))"
    )


def _matching_positions(index: Index, query: Query, images: list[int]) -> dict[int, tuple[int, ...]]:
    if not images:
        return {}
    of_mask, parameters = _mask_conditions(query)
    within = f"image_id in ({', '.join(map(str, images))})"
    rows = index.query(
        "select image_id, list(position order by position) from masks where "
        f"{' and '.join([within, *of_mask])} group by image_id",
        parameters,
    )
    return {image: tuple(positions) for image, positions in rows}


def _number(name: str, text: str, low: float, high: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not low <= value <= high:
        raise ConfigError(f"{name}={text!r} is not a number from {low} to {high}")
    return value


def histogram(index: Index, query: Query, measure: str, bins: int = 24) -> dict[str, Any]:
    """How `measure` is spread over the masks that the query's mask filters let through.

    {"low", "high", "counts": [bins]}; areas in pixels are binned by their logarithm ("log": true).
    The measure's own range is left out, so that the page can draw a range over the whole.
    """
    if measure not in MEASURES:
        raise ConfigError(f"measure={measure!r}: choose from {', '.join(MEASURES)}")
    others = {name: pair for name, pair in query.ranges.items() if name != measure}
    conditions, parameters = _mask_conditions(replace(query, ranges=others))
    if not query.target:
        conditions.append("has_target")
    log = measure == "area"
    value = f"ln(greatest({measure}, 1))" if log else measure
    where = f" where {' and '.join([*conditions, f'isfinite({value})'])}"
    low, high = index.query(f"select min({value}), max({value}) from masks{where}", parameters)[0]
    if low is None:
        return {"low": None, "high": None, "log": log, "counts": [0] * bins}
    if not log:
        low, high = min(low, 0.0), max(high, 1.0)
    width = (high - low) / bins or 1.0
    counts = [0] * bins
    for position, count in index.query(
        f"select least(floor(({value} - {low}) / {width})::integer, {bins - 1}), count(*) "
        f"from masks{where} group by 1",
        parameters,
    ):
        counts[position] = count
    ends = (math.exp(low), math.exp(high)) if log else (low, high)
    return {"low": ends[0], "high": ends[1], "log": log, "counts": counts}
