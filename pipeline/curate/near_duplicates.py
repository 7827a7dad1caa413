"""Images whose 64-bit perceptual hashes differ in few bits: one of them stays.

All pairs would be quadratic. Blocks: cut the hash into m blocks; two hashes that differ in at most d bits
agree in at least m - d blocks, whichever those are. For each choice of m - d blocks, sort by these blocks
and compare only hashes that agree in them (G. S. Manku, A. Jain, A. Das Sarma, "Detecting near-duplicates
for web crawling", WWW 2007). DuckDB does each choice as one join that spills to disk.
"""

from __future__ import annotations

import math
from itertools import combinations, pairwise

import duckdb
import numpy as np
import pyarrow as pa

_BITS = 64
_MOST_CHOICES = 250


def block_choices(distance: int, hashes: int) -> list[int]:
    """Bit masks; two hashes within `distance` agree in all bits of at least one of them.

    The fewest choices whose masks are long enough that random hashes seldom meet: log2(`hashes`) bits.
    """
    enough = math.log2(max(hashes, 2)) - 2
    best = distance + 1
    for blocks in range(distance + 1, _BITS + 1):
        if math.comb(blocks, distance) > _MOST_CHOICES:
            break
        best = blocks
        if _BITS * (blocks - distance) // blocks >= enough:
            break
    edges = [round(_BITS * block / best) for block in range(best + 1)]
    parts = [((1 << high) - 1) ^ ((1 << low) - 1) for low, high in pairwise(edges)]
    return [sum(chosen) for chosen in combinations(parts, best - distance)]


def drop_near_duplicates(connection: duckdb.DuckDBPyConnection, distance: int) -> None:
    """Fill the table `dropped_images(file, row)` from the view `images` of the survivors.

    Of near-duplicates the one stays that a person accepted, then the one of more pixels, then the first of
    the dataset. Chains are not followed: an image goes only if one that stays is within `distance`.
    Images without a hash stay.
    """
    connection.execute(
        "CREATE TABLE hashes AS SELECT phash, min(rank) AS rank FROM ("
        " SELECT phash, {'rejected': NOT accepted, 'pixels': -pixels, 'file': file, 'row': row} AS rank"
        " FROM images WHERE phash IS NOT NULL) GROUP BY phash"
    )
    connection.execute(
        "INSERT INTO dropped_images SELECT images.file, images.row FROM images JOIN hashes USING (phash)"
        " WHERE images.file != rank.file OR images.row != rank.row"
    )
    if distance:
        connection.execute(
            "CREATE TABLE leaders AS SELECT row_number() OVER (ORDER BY rank) - 1 AS place,"
            " phash::BIGINT AS phash, rank.file AS file, rank.row AS row FROM hashes"
        )
        _drop_close_leaders(connection, distance)
        connection.execute("DROP TABLE leaders")
    connection.execute("DROP TABLE hashes")


def _drop_close_leaders(connection: duckdb.DuckDBPyConnection, distance: int) -> None:
    """Of hashes that differ in 1 to `distance` bits drop the later places, greedily."""
    ((number,),) = connection.execute("SELECT count(*) FROM leaders").fetchall()
    connection.execute("CREATE TABLE pairs (better BIGINT, worse BIGINT)")
    for bits in block_choices(distance, number):
        signed = bits - (1 << _BITS) if bits >> (_BITS - 1) else bits
        connection.execute(
            "INSERT INTO pairs SELECT a.place, b.place FROM leaders a JOIN leaders b"
            f" ON (a.phash & {signed}::BIGINT) = (b.phash & {signed}::BIGINT) AND a.place < b.place"
            f" WHERE bit_count(xor(a.phash, b.phash)) <= {distance}"
        )
    dropped = np.zeros(number, dtype=bool)
    # By `better`: when its turn comes, whether it stays is settled, for every pair against it came before.
    reader = connection.execute("SELECT DISTINCT better, worse FROM pairs ORDER BY better, worse")
    while batch := reader.fetchmany(10_000):
        for better, worse in batch:
            if not dropped[better]:
                dropped[worse] = True
    connection.execute("DROP TABLE pairs")
    places = np.flatnonzero(dropped)
    connection.register("close_places", pa.table({"place": places}))
    connection.execute(
        "INSERT INTO dropped_images SELECT file, row FROM leaders JOIN close_places USING (place)"
    )
    connection.unregister("close_places")
