"""The stages that depend on the whole dataset: near-duplicate images and phrase caps, by DuckDB."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from pipeline.curate.curate_config import CurateConfig, CurateResources
from pipeline.curate.near_duplicates import drop_near_duplicates
from pipeline.dataset.phrase_rows import WITH_IMAGE, Counts

DUPLICATES = "near-duplicate images"
CAPS = "phrase caps"
_MOST_LISTED = 20
_ORDERS = {"score": "accepted DESC, score DESC NULLS LAST", "hash": 'accepted DESC, "order"'}


@dataclass(frozen=True)
class Whole:
    """The decisions over the whole dataset: counts of what was dropped, and the capped phrases."""

    counts: Counts
    capped: list[dict[str, Any]]


def stages(config: CurateConfig) -> list[str]:
    """Names of the stages that run here, in order."""
    names = [DUPLICATES] if config.phash_distance is not None else []
    return names + ([CAPS] if config.max_per_phrase is not None else [])


def decide(scratch: Path, config: CurateConfig, resources: CurateResources) -> Whole:
    """Read the survivors in `scratch`; write `dropped_images.parquet` and `dropped_masks.parquet` there."""
    counts: Counts = Counter()
    settings: dict[str, Any] = {
        "memory_limit": f"{resources.memory_mb}MiB",
        "temp_directory": str(scratch / "spill"),
        "python_enable_replacements": False,
        "preserve_insertion_order": False,
    }
    with duckdb.connect(str(scratch / "survivors.duckdb"), config=settings) as connection:
        for name in ("images", "masks"):
            pattern = str(scratch / f"{name}-*.parquet").replace("'", "''")
            connection.execute(f"CREATE VIEW {name} AS SELECT * FROM read_parquet('{pattern}')")
        connection.execute("CREATE TABLE dropped_images (file INTEGER, row INTEGER)")
        connection.execute(
            "CREATE TABLE dropped_masks (file INTEGER, row INTEGER, mask INTEGER, phrase VARCHAR)"
        )
        connection.execute(
            "CREATE VIEW living_masks AS SELECT * FROM masks ANTI JOIN dropped_images USING (file, row)"
        )
        if config.phash_distance is not None:
            drop_near_duplicates(connection, config.phash_distance)
            counts[DUPLICATES, "dropped_images", "near_duplicate"] = _number(connection, "dropped_images")
            counts[DUPLICATES, "dropped_phrases", WITH_IMAGE] = _number(
                connection, "masks SEMI JOIN dropped_images USING (file, row)"
            )
        capped = []
        if config.max_per_phrase is not None:
            capped = _cap_phrases(connection, config.max_per_phrase, config.cap_order)
            counts[CAPS, "dropped_phrases", "over_the_cap"] = _number(connection, "dropped_masks")
        for name, columns in (("dropped_images", "file, row"), ("dropped_masks", "file, row, mask")):
            path = str(scratch / f"{name}.parquet").replace("'", "''")
            connection.execute(
                f"COPY (SELECT {columns} FROM {name} ORDER BY {columns}) TO '{path}'"
                " (FORMAT parquet, ROW_GROUP_SIZE 100000)"
            )
    return Whole(counts, capped)


def _cap_phrases(connection: duckdb.DuckDBPyConnection, cap: int, order: str) -> list[dict[str, Any]]:
    """Fill the table `dropped_masks`; return the phrases that lost most masks, and how many.

    Of each normalised phrase `cap` masks stay, and as many without a target: those a person accepted, then
    by `order` ("score": best first, "hash": an even sample), then the first of the dataset. Only the phrases
    above the cap are ranked: the head is balanced, the tail kept whole.
    """
    connection.execute(
        "INSERT INTO dropped_masks WITH heads AS"
        f" (SELECT phrase, has_target FROM living_masks GROUP BY ALL HAVING count(*) > {cap})"
        " SELECT file, row, mask, phrase FROM living_masks SEMI JOIN heads USING (phrase, has_target)"
        " QUALIFY row_number() OVER (PARTITION BY phrase, has_target"
        f" ORDER BY {_ORDERS[order]}, file, row, mask) > {cap}"
    )
    rows = connection.execute(
        "SELECT phrase, count(*) AS dropped FROM dropped_masks GROUP BY phrase"
        f" ORDER BY dropped DESC, phrase LIMIT {_MOST_LISTED}"
    ).fetchall()
    return [{"phrase": phrase, "dropped": dropped} for phrase, dropped in rows]


def _number(connection: duckdb.DuckDBPyConnection, source: str) -> int:
    ((number,),) = connection.execute(f"SELECT count(*) FROM {source}").fetchall()
    return int(number)
