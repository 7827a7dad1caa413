"""Faults of the storage: those that pass are waited for, those that stay are reported."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import ClassVar

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFile, MemoryFileSystem
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.sources import ReadOptions, Shard, list_shards
from pipeline.sources.storage import is_transient, mend_for
from sspsam.images.load_image import load_image
from tests.pipeline.sources.http_server import serve
from tests.pipeline.sources.shards import FAST, pairs, read, tar_bytes

DATA, _ = tar_bytes(pairs(9, size=3000))
WHOLE = [bytes([i]) * 3000 for i in range(9)]


class FlakyFile(MemoryFile):
    """Breaks once `limit` bytes are read; or, worse, says that the file ends there."""

    limit: int | None = None
    silent = False

    def read(self, size: int = -1) -> bytes:
        if self.limit is not None and self.tell() + size > self.limit:
            if not self.silent and self.tell() >= self.limit:
                raise ConnectionResetError("connection reset by peer")
            return super().read(max(self.limit - self.tell(), 0))
        return super().read(size)

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


class FlakyFileSystem(MemoryFileSystem):
    """A filesystem whose next opened files break at the given bytes."""

    protocol = "flaky"
    cachable = False
    limits: ClassVar[list[int]] = []
    silent = False
    opened = 0

    def _open(self, path: str, mode: str = "rb", **options: object) -> MemoryFile:
        type(self).opened += 1
        file = FlakyFile(self, path, DATA)
        file.seek(0)
        file.limit = self.limits.pop(0) if self.limits else None
        file.silent = self.silent
        return file


fsspec.register_implementation("flaky", FlakyFileSystem, clobber=True)


@settings(max_examples=80, deadline=None)
@given(
    cuts=st.lists(st.integers(0, len(DATA) - 1), max_size=3),
    silent=st.booleans(),
    skip=st.lists(st.integers(0, 2), unique=True),
)
def test_broken_connections_lose_and_repeat_nothing(cuts, silent, skip):
    """Wherever the connection breaks, even if it looks like the end: the same samples as ever."""
    FlakyFileSystem.limits, FlakyFileSystem.silent = list(cuts), silent
    FlakyFileSystem.opened = 0
    options = ReadOptions(attempts=len(cuts) + 1, backoff_seconds=0)
    samples = read(Shard("s", "flaky://s.tar", "tar", len(DATA)), 4, skip, options)
    assert [sample.image for sample in samples] == [
        image for i, image in enumerate(WHOLE) if i // 4 not in skip
    ]
    assert FlakyFileSystem.opened == len(cuts) + 1


def test_storage_that_stays_down_is_reported_after_the_whole_samples():
    FlakyFileSystem.limits, FlakyFileSystem.silent = [20_000] * 50, False
    *good, broken = read(Shard("s", "flaky://s.tar", "tar", len(DATA)))
    assert [sample.image for sample in good] == WHOLE[: len(good)]
    assert 0 < len(good) < 9
    kind, message = broken.error
    assert kind == "unreadable_shard"
    assert "connection reset by peer" in message
    assert "flaky://s.tar" in message
    assert f"{FAST.attempts} attempts" in message


@pytest.mark.parametrize("ranges", [True, False])
def test_http(ranges: bool, tmp_path: Path) -> None:
    """A real server, with and without ranges: whole, hanging up, 503, 404, 403, not a tar."""
    with serve({"s.tar": DATA, "html.tar": b"<html>" * 99}, ranges=ranges) as server:
        listed = tmp_path / "urls.txt"
        listed.write_text(f"# shards\n{server.url}/s.tar\n\n{server.url}/html.tar\n")
        # The options of a run are for its output too: an object store's keys are not for a web server.
        store = {"key": "k", "secret": "s", "endpoint_url": "http://127.0.0.1:9", "anon": False}
        html, shard = list_shards(str(listed), storage_options=store)
        assert (shard.name, shard.size, shard.url) == ("s", len(DATA), f"{server.url}/s.tar")

        assert [sample.image for sample in read(shard)] == WHOLE
        with_options = dataclasses.replace(FAST, storage_options=store)
        again = read(shard, options=with_options)
        assert [sample.image for sample in again] == WHOLE
        assert [load_image(sample.ref, store) for sample in again] == WHOLE
        for faults in ([5000], [0, 512, 9000], [503], [500, 700, 429]):
            server.faults = list(faults)
            options = ReadOptions(attempts=8, backoff_seconds=0)
            assert [sample.image for sample in read(shard, options=options)] == WHOLE
            assert not server.faults
        (sample,) = read(html)
        assert sample.error[0] == "not_a_tar"
        for status in (403, 404):
            server.faults = [status]
            server.requests.clear()
            (sample,) = read(shard)
            assert sample.error[0] == "unreadable_shard"
            assert len(server.requests) == 1  # such a fault stays: no second attempt
        server.files["s.tar"] = DATA + DATA
        (sample,) = read(shard)
        assert "changed since it was listed" in sample.error[1]
    (sample,) = read(shard)
    assert sample.error[0] == "unreadable_shard"
    assert f"{FAST.attempts} attempts" in sample.error[1]


def test_which_faults_pass() -> None:
    for error in (ConnectionResetError(), TimeoutError(), OSError(5, "I/O"), EOFError()):
        assert is_transient(error)
    for other in (FileNotFoundError(), PermissionError(), ValueError("bug"), KeyError("bug")):
        assert not is_transient(other)
    botocore = pytest.importorskip("botocore.exceptions")
    for status, expected in ((503, True), (500, True), (429, True), (404, False), (403, False)):
        answer = {"Error": {"Code": "x"}, "ResponseMetadata": {"HTTPStatusCode": status}}
        assert is_transient(botocore.ClientError(answer, "GetObject")) is expected
    assert is_transient(botocore.EndpointConnectionError(endpoint_url="http://x"))
    assert not is_transient(botocore.NoCredentialsError())
    assert "--storage-options" in mend_for(botocore.NoCredentialsError())
    assert "credentials" in mend_for(botocore.ClientError(answer, "GetObject"))
