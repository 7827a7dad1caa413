"""How shards are shared out to readers, and how a reader packs chunks into rows; without Ray."""

from __future__ import annotations

import pickle
from collections.abc import Iterator

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.annotate import chunks
from pipeline.annotate.ledger import Ledger
from pipeline.annotate.receipts import Begun, Tasks
from pipeline.annotate.shard_files import ShardFiles, Source
from pipeline.annotate.shard_reader import ShardReader, read_together
from pipeline.sources import Chunk, Sample, Shard

SIZES = st.lists(st.one_of(st.none(), st.integers(0, 64 << 20)), min_size=1, max_size=400)


@given(SIZES, st.integers(1, 8))
def test_every_shard_is_read_by_one_reader(sizes: list[int | None], readers: int) -> None:
    shards = [Shard(f"{n:05d}", f"/in/{n:05d}.tar", "tar", size) for n, size in enumerate(sizes)]
    groups = read_together(shards, readers)
    assert [number for group in groups for number in group] == list(range(len(shards)))
    assert all(len(group) <= 256 for group in groups)


def read_three_a_chunk(shard: Shard, size: int, skip: frozenset[int]) -> Iterator[Chunk]:
    """Shards whose name says how many samples they have."""
    samples = [
        Sample(
            f"{n}",
            n,
            b"x" * 1000,
            None,
            {},
            {"url": shard.url, "member": None, "offset": None, "length": None},
        )
        for n in range(int(shard.name.split("-")[1]))
    ]
    for number, first in enumerate(range(0, len(samples), size)):
        if number not in skip:
            yield Chunk(shard, number, samples[first : first + size], last=first + size >= len(samples))


@settings(deadline=None, max_examples=25)
@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=12), st.sets(st.integers(0, 4)), st.floats(0.001, 1.0)
)
def test_rows_hold_what_is_missing_once_and_a_reader_that_is_run_again_repeats_them(
    counts: list[int], done: set[int], seconds: float
) -> None:
    shards = [Shard(f"{n}-{count}", f"/in/{n}", "tar", 1) for n, count in enumerate(counts)]
    begun = Begun(dict.fromkeys(done, Source("")), None, ShardFiles(), None)
    tasks = Tasks(shards, {shards[0].name: begun})
    batch = pa.table({"tasks": [pickle.dumps([tasks.task(n) for n in range(len(shards))])]})
    book = Ledger()
    book.begin_chain(3, replicas=1)
    book._samples, book._seconds = 1000, 1000 * seconds  # so fast that rows hold several chunks, or one
    reader = ShardReader(read_three_a_chunk, 3, 1.0, book)
    rows = [chunks.numbers(table) for table in reader(batch)]
    expected = [
        (shard.name, number)
        for n, (shard, count) in enumerate(zip(shards, counts, strict=True))
        for number in range(-(-count // 3))
        if n or number not in done
    ]
    assert [chunk for row in rows for chunk in row] == expected
    assert book.under_way() == []
    book._samples, book._seconds = 10**6, 1.0  # the speed is another one by now
    assert [chunks.numbers(table) for table in reader(batch)] == rows
