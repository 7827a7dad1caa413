"""The counts of the report, each by one query over the index."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipeline.dataset.image_query import Query, histogram
from pipeline.dataset.phrase_index import Index
from sspsam.schema import STATUSES


@dataclass(frozen=True)
class Numbers:
    """Counts of a whole dataset. Masks are those with a target; empty ones are phrases without."""

    images: int
    statuses: dict[str, int]
    shards: int
    masks: int
    empty: int
    phrases: int  # distinct ones
    quantiles: dict[str, tuple[float, ...] | None]  # measure: 5, 25, 50, 75, 95 %
    histograms: dict[str, dict[str, Any]]  # measure: as `query.histogram` gives
    masks_an_image: list[tuple[int, int]]  # (masks, images), of images that are ok
    errors: list[tuple[str, int, list[str]]]  # (kind, images, examples "key: message")
    no_phrase: list[tuple[str, int]]  # (reason, images)


def count(index: Index) -> Numbers:
    """All counts. Memory is DuckDB's and bounded by its limit."""
    query = index.query
    statuses = dict.fromkeys(STATUSES, 0)
    statuses |= {str(name): int(n) for name, n in query("select status, count(*) from images group by 1")}
    ((shards, images),) = query("select count(distinct shard), count(*) from images")
    ((masks, empty),) = query(
        "select count(*) filter (has_target), count(*) filter (not has_target) from masks"
    )
    quantiles = {}
    measures = (*index.dataset.signals(), "area", "area_fraction")
    for measure in measures:
        ((found,),) = query(
            f"select quantile_cont({measure}, [0.05, 0.25, 0.5, 0.75, 0.95]) from masks"
            f" where has_target and isfinite({measure})"
        )
        quantiles[measure] = tuple(found) if found else None
    return Numbers(
        images=images,
        statuses=statuses,
        shards=shards,
        masks=masks,
        empty=empty,
        phrases=query("select count(*) from phrases")[0][0],
        quantiles=quantiles,
        histograms={name: histogram(index, Query(), name, bins=30) for name in measures},
        masks_an_image=index.masks_an_image(),
        errors=[
            (str(kind), int(n), list(examples))
            for kind, n, examples in query(
                """select coalesce(error_kind, 'unknown'), count(*),
                list_slice(list("key" || ': ' || coalesce(error_message, '') order by id), 1, 3)
                from (select *, row_number() over (partition by error_kind order by id) as place
                      from images where status = 'error')
                group by 1 order by 2 desc"""
            )
        ],
        no_phrase=query(
            "select coalesce(error_kind, 'no phrase'), count(*) from images"
            " where status = 'no_phrase' group by 1 order by 2 desc"
        ),
    )


@dataclass(frozen=True)
class PhraseRow:
    """One phrase over the whole dataset."""

    phrase: str
    images: int
    masks: int  # with a target
    score: float | None  # mean
    share: float | None  # median share of the image
    iou: float | None  # mean, where there is truth


def phrase_rows(index: Index, limit: int, *, order: str = "frequency") -> list[PhraseRow]:
    """The most frequent phrases, or by order="score" those of at least 5 masks that score worst."""
    having = "having count(*) filter (has_target) >= 5" if order == "score" else ""
    by = "mean_score asc nulls last, n desc" if order == "score" else "n desc"
    rows = index.query(
        f"""select phrase, count(distinct image_id) as n, count(*) filter (has_target),
        avg(score) filter (has_target) as mean_score,
        median(area_fraction) filter (has_target),
        avg(t.iou) filter (t.truth_area > 0)
        from masks join phrases using (phrase_id) left join truth t using (image_id, position)
        group by phrase {having} order by {by}, phrase limit {limit}"""
    )
    return [PhraseRow(*row) for row in rows]
