"""The protocol of names under crashes between any two writes: no Ray, a store in memory."""

from __future__ import annotations

import contextlib
import functools
import io
import json
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from jobs.cli import main
from pipeline.annotate.chunk_receipt import Receipt, chunk_name
from pipeline.annotate.chunk_writer import encode_chunk
from pipeline.annotate.manifest import Manifest
from pipeline.annotate.receipts import Survey, plan_tasks, survey
from pipeline.annotate.rows import count_rows, rows_table
from pipeline.annotate.seal import seal_shard
from pipeline.annotate.shard_files import CHUNK_KEY, early_name, part_name
from pipeline.annotate.shard_receipt import ShardReceipt, receipt_name
from pipeline.dataset.opening import open_dataset
from pipeline.dataset.store import Store
from pipeline.sources import Shard
from sspsam.errors import DataError

SHARD = "s"
CHUNK_ROWS = 2


class CrashError(Exception):
    """The process is killed before this write."""


class MemoryStore(Store):
    """A store whose process dies before the write after `writes_left`; readers are asked after each."""

    def __init__(self) -> None:
        super().__init__("memory")
        object.__setattr__(self, "files", {})
        object.__setattr__(self, "writes_left", None)
        object.__setattr__(self, "readings", 0)

    files: dict[str, bytes]
    writes_left: int | None

    def _write(self) -> None:
        if self.writes_left is not None:
            if self.writes_left == 0:
                raise CrashError
            object.__setattr__(self, "writes_left", self.writes_left - 1)

    def path(self, name: str) -> str:
        return name

    def put(self, name: str, data: bytes) -> None:
        self._write()
        self.files[name] = data
        self.read_as_anybody()

    def get(self, name: str, last: int | None = None) -> bytes | None:
        data = self.files.get(name)
        return data if data is None or last is None else data[-last:]

    def listing(self, folder: str = "") -> dict[str, int]:
        found = {name: len(data) for name, data in self.files.items()}
        return {name: size for name, size in found.items() if not folder or name.startswith(f"{folder}/")}

    def delete(self, names: Iterable[str]) -> None:
        for name in list(names):
            if name in self.files:
                self._write()
                del self.files[name]
                self.read_as_anybody()

    def get_many(self, names: Iterable[str]) -> dict[str, bytes | None]:
        return {name: self.get(name) for name in names}

    def read_as_anybody(self) -> list[tuple[int, str]]:
        """(index, status) of every row in `annotations/`, as pyarrow finds them; none may be there twice."""
        rows: list[tuple[int, str]] = []
        for name, data in self.files.items():
            if name.startswith("annotations/"):
                rows += rows_in(data)
        indices = [index for index, _ in rows]
        assert len(indices) == len(set(indices)), f"a row twice: {sorted(indices)}"
        return sorted(rows)


@functools.lru_cache(maxsize=2**12)  # each file is looked at after every write
def rows_in(data: bytes) -> list[tuple[int, str]]:
    """(index, status) of every row of a Parquet file; none, if the test damaged it."""
    try:
        table = pq.read_table(io.BytesIO(data), columns=["index", "status"])
    except (pa.ArrowException, OSError):
        return []
    return list(zip(table["index"].to_pylist(), table["status"].to_pylist(), strict=True))


@functools.cache
def chunk_bytes(number: int, chunks: int, errors: frozenset[int] = frozenset()) -> bytes:
    """The file of a chunk; samples in `errors` are error rows."""
    start = number * CHUNK_ROWS
    rows: list[dict[str, Any]] = []
    for index in range(start, start + CHUNK_ROWS):
        bad = index in errors
        error = {"kind": "fetch_failed", "message": "x"} if bad else None
        status = "error" if bad else "ok"
        row = {"key": f"k{index}", "shard": SHARD, "index": index, "status": status, "error": error}
        rows.append({**row, "annotations": []})
    table = rows_table(rows)
    return encode_chunk(table, Receipt(SHARD, number, number == chunks - 1, **count_rows(table)), "{}")


class Sealing(RuleBasedStateMachine):
    """One shard through computing, sealing, retrying, crashing and damage, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.store = MemoryStore()
        self.chunks = 5
        self.part_bytes = 1
        self.errors: frozenset[int] = frozenset({3, 8})
        self.harmed = False
        self.done: set[int] = set()

    def alive(self, action: Any, writes: int | None) -> Any:
        """Run `action`, killed after so many writes."""
        object.__setattr__(self.store, "writes_left", writes)
        try:
            return action()
        except CrashError:
            return None
        finally:
            object.__setattr__(self.store, "writes_left", None)

    def look(self) -> Survey:
        return survey(self.store, [SHARD])

    def missing(self, found: Survey) -> list[int]:
        tasks, _ = plan_tasks([Shard(SHARD, "s.tar", "tar")], found, None)
        return [n for n in range(self.chunks) if tasks.shards and n not in tasks.task(0).done]

    @rule(data=st.data(), parts=st.sampled_from([1, 20_000, 1 << 30]), early=st.booleans())
    def compute_some(self, data: st.DataObject, parts: int, early: bool) -> None:
        """Some of what is missing is computed; a dataset that is begun by an older version is possible."""
        self.part_bytes = parts
        fresh = not self.store.files
        missing = self.missing(self.look())
        some = data.draw(st.lists(st.sampled_from(missing), unique=True)) if missing else []
        for number in some:
            name = early_name if early and fresh else chunk_name
            self.store.put(name(SHARD, number), chunk_bytes(number, self.chunks, self.errors))

    @rule(writes=st.integers(0, 20))
    def seal(self, writes: int) -> None:
        self.alive(self.try_to_seal, writes)

    def try_to_seal(self) -> None:
        with contextlib.suppress(DataError):
            seal_shard(self.store, SHARD, self.chunks, self.part_bytes)

    @rule(writes=st.integers(0, 6))
    def retry_errors(self, writes: int) -> None:
        """As `--retry-errors` does; the errors that are there pass by then."""
        self.alive(lambda: self.look().without(self.store, "any"), writes)
        self.done = self.computed()

    @rule(index=st.integers(0, 9))
    def another_error(self, index: int) -> None:
        """From now on another sample fails."""
        self.errors = frozenset({index})

    @rule()
    def errors_pass(self) -> None:
        self.errors = frozenset()

    @rule(writes=st.integers(0, 3))
    def resume(self, writes: int) -> None:
        self.alive(self.look, writes)

    @rule()
    def late_chunk(self) -> None:
        """Another job, or a task that Ray repeated, writes a chunk when it is done already."""
        self.store.put(chunk_name(SHARD, 1), chunk_bytes(1, self.chunks, self.errors))

    @precondition(lambda self: self.store.files)
    @rule(data=st.data(), how=st.sampled_from(["cut", "gone"]))
    def harm(self, data: st.DataObject, how: str) -> None:
        """A file is cut short, or deleted by hand: rows may be lost, and must be computed again."""
        name = data.draw(st.sampled_from(sorted(self.store.files)))
        if how == "gone":
            del self.store.files[name]
        elif name.endswith(".parquet"):
            self.store.files[name] = self.store.files[name][: len(self.store.files[name]) // 2]
        self.harmed = True

    def computed(self) -> set[int]:
        """Chunks that a resume would not compute; asked of a copy, since asking removes rubbish."""
        copy = MemoryStore()
        copy.files.update(self.store.files)
        return set(range(self.chunks)) - set(self.missing(survey(copy, [SHARD])))

    @invariant()
    def no_work_is_lost(self) -> None:
        found = self.computed()
        assert self.harmed or found >= self.done, f"lost {self.done - found}"
        self.done = found

    @invariant()
    def nobody_sees_a_row_twice(self) -> None:
        self.store.read_as_anybody()

    def teardown(self) -> None:
        """The same command, again and again: it ends, with each row once."""
        for _ in range(2 * self.chunks + 2):
            found = self.look()
            if SHARD in found.ended:
                break
            for number in self.missing(found):
                self.store.put(chunk_name(SHARD, number), chunk_bytes(number, self.chunks, self.errors))
            self.try_to_seal()
        assert SHARD in found.ended, sorted(self.store.files)
        rows = self.store.read_as_anybody()
        assert [index for index, _ in rows] == list(range(self.chunks * CHUNK_ROWS))
        receipt = found.ended[SHARD]
        assert receipt.error == sum(status == "error" for _, status in rows)
        assert not [name for name in self.store.files if name.startswith("_chunks/")]
        super().teardown()


TestSealing = Sealing.TestCase
TestSealing.settings = settings(max_examples=15, stateful_step_count=12, deadline=None)


def test_bytes_that_a_network_changed_are_not_sealed() -> None:
    """Whichever byte of a chunk's pages it is: a checksum tells, where pyarrow decodes another value."""
    store, data = MemoryStore(), chunk_bytes(0, 1, frozenset([1]))
    wanted = pq.read_table(io.BytesIO(data))
    group = pq.read_metadata(io.BytesIO(data)).row_group(0)
    columns = [group.column(number) for number in range(group.num_columns)]
    end = max(column.data_page_offset for column in columns)
    refused = 0
    for at in range(4, end, 11):
        store.files.clear()
        store.files[chunk_name(SHARD, 0)] = data[:at] + bytes([data[at] ^ 0xFF]) + data[at + 1 :]
        try:
            seal_shard(store, SHARD, 1)
        except DataError:
            refused += 1
            assert not any(name.startswith("annotations/") for name in store.files)
        else:
            assert pq.read_table(io.BytesIO(store.files[part_name(SHARD, 0)])).equals(wanted)
    assert refused > end // 22


def test_a_dataset_of_an_earlier_version_is_read_resumed_and_compacted(tmp_path: Path) -> None:
    """`sspsam compact` on a finished shard and on one that is begun, which waits for `annotate`."""
    store = Store(str(tmp_path))
    for number in range(5):
        store.put(early_name(SHARD, number), chunk_bytes(number, 5))
    footers = [pq.read_schema(tmp_path / early_name(SHARD, number)).metadata for number in range(5)]
    receipts = [Receipt.from_json(metadata[CHUNK_KEY]) for metadata in footers]
    values = json.loads(ShardReceipt.of(SHARD, receipts, None).to_json())
    del values["files"], values["retry"]  # which earlier versions did not know
    store.put(receipt_name(SHARD), json.dumps(values).encode())
    store.put(early_name("begun", 0), chunk_bytes(0, 5))
    inputs = [{"name": n, "url": n, "format": "tar", "size": 1, "etag": None} for n in (SHARD, "begun")]
    store.put("_run.json", Manifest({"name": "m", "sha256": "0"}, {}, inputs).to_json())
    before = open_dataset(str(tmp_path))
    found = survey(store, [SHARD, "begun"])
    assert list(found.ended) == [SHARD]
    assert found.begun["begun"].done == {0}

    assert main(["compact", str(tmp_path)]) == 0
    after = open_dataset(str(tmp_path))
    names = [file.path.removeprefix(f"{tmp_path}/") for file in after.files]
    assert names == [early_name("begun", 0), part_name(SHARD, 0)]
    assert after.rows == before.rows == 12
    assert survey(store, [SHARD]).ended[SHARD].files == {part_name(SHARD, 0): after.files[1].size}
    assert not (tmp_path / "_chunks").exists()
    assert main(["compact", str(tmp_path)]) == 0  # nothing to do
    store.put(chunk_name("new", 0), chunk_bytes(0, 5))
    shown = [file.path.removeprefix(f"{tmp_path}/") for file in after.list_shown()]
    assert shown == [chunk_name("new", 0), *names]


def drive_histories(number: int) -> None:
    run_state_machine_as_test(
        Sealing, settings=settings(max_examples=number, stateful_step_count=20, deadline=None)
    )


@pytest.mark.chaos
def test_a_thousand_histories() -> None:
    """In two processes: it is the processor's work alone."""
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        list(pool.map(drive_histories, [500, 500]))
