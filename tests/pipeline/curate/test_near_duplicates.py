"""Near-duplicate images by buckets are those that comparing every pair finds."""

from __future__ import annotations

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from pipeline.curate.near_duplicates import block_choices, drop_near_duplicates


@pytest.mark.parametrize(("distance", "number"), [(1, 10), (3, 10**9), (6, 10**6), (8, 200_000)])
def test_any_two_close_hashes_agree_in_a_block_choice(distance: int, number: int) -> None:
    choices = block_choices(distance, number)
    assert len(choices) <= 250
    rng = np.random.default_rng(0)
    for _ in range(200):
        flips = sum(1 << int(bit) for bit in rng.permutation(64)[:distance])
        assert any(flips & bits == 0 for bits in choices)


@pytest.mark.parametrize("distance", [0, 1, 4, 8])
def test_the_same_images_go_as_by_all_pairs(distance: int) -> None:
    rng = np.random.default_rng(distance)
    hashes: list[int | None] = []
    for _ in range(60):
        centre = int(rng.integers(-(2**63), 2**63 - 1))
        for _ in range(int(rng.integers(1, 7))):
            flips = sum(1 << int(bit) for bit in rng.permutation(64)[: int(rng.integers(0, 10))])
            moved = (centre ^ flips) & (2**64 - 1)
            hashes.append(moved - 2**64 if moved >= 2**63 else moved)
    hashes += [*hashes[:8], None, None]
    number = len(hashes)
    accepted = rng.random(number) < 0.2
    pixels = rng.integers(1, 4, number) * 100
    order = rng.permutation(number)
    with duckdb.connect(config={"threads": 1}) as connection:
        images = pa.table(
            {
                "file": pa.array(order // 10, pa.int32()),
                "row": pa.array(order % 10, pa.int32()),
                "phash": pa.array(hashes, pa.int64()),
                "accepted": accepted,
                "pixels": pixels,
            }
        )
        connection.register("images", images)
        connection.execute("CREATE TABLE dropped_images (file INTEGER, row INTEGER)")
        drop_near_duplicates(connection, distance)
        dropped = connection.sql("FROM dropped_images").fetchall()
    assert len(dropped) == len(set(dropped))
    kept: list[int] = []
    expected = set()
    for one in sorted(range(number), key=lambda i: (not accepted[i], -pixels[i], order[i])):
        value = hashes[one]
        if value is None:
            continue
        near = [other for other in kept if ((value ^ hashes[other]) & (2**64 - 1)).bit_count() <= distance]
        if near:
            expected.add((int(order[one]) // 10, int(order[one]) % 10))
        else:
            kept.append(one)
    assert set(dropped) == expected
    assert len(expected) > 5
