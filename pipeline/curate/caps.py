"""At most so many masks of one phrase: the head is balanced, the tail kept whole."""

from __future__ import annotations

from typing import Any

import duckdb

_ORDERS = {"score": "accepted DESC, score DESC NULLS LAST", "hash": 'accepted DESC, "order"'}


def cap_phrases(connection: duckdb.DuckDBPyConnection, cap: int, order: str) -> None:
    """Fill the table `dropped_masks(file, row, mask, phrase)` from the view `masks` of the survivors.

    Of each normalised phrase `cap` masks stay, and as many without a target: those a person accepted, then
    by `order` ("score": best first, "hash": an even sample), then the first of the dataset. Only the phrases
    above the cap are ranked.
    """
    connection.execute(
        "CREATE TABLE heads AS SELECT phrase, has_target FROM living_masks"
        f" GROUP BY ALL HAVING count(*) > {cap}"
    )
    connection.execute(
        "INSERT INTO dropped_masks SELECT file, row, mask, phrase FROM"
        " (SELECT file, row, mask, phrase, row_number() OVER (PARTITION BY phrase, has_target"
        f" ORDER BY {_ORDERS[order]}, file, row, mask) AS place"
        " FROM living_masks SEMI JOIN heads USING (phrase, has_target))"
        f" WHERE place > {cap}"
    )
    connection.execute("DROP TABLE heads")


def capped_phrases(connection: duckdb.DuckDBPyConnection, most: int = 20) -> list[dict[str, Any]]:
    """The phrases that lost most masks to the cap, and how many."""
    rows = connection.execute(
        "SELECT phrase, count(*) AS dropped FROM dropped_masks GROUP BY phrase"
        f" ORDER BY dropped DESC, phrase LIMIT {most}"
    ).fetchall()
    return [{"phrase": phrase, "dropped": dropped} for phrase, dropped in rows]
