"""The size of a chunk that nobody gave: from the speed of a replica, within its bounds."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pipeline.annotate import replica_speed
from pipeline.annotate.annotate_config import AnnotateConfig
from pipeline.annotate.prepare import Job, prepare
from pipeline.annotate.replica_speed import Speed, chunk_size_for, first_chunk, time_chunk
from pipeline.sources import Shard
from tests.pipeline.annotate.inputs import write_shards

KIB, MIB = 2**10, 2**20


def job_of(shards: list[Shard], **options: Any) -> Job:
    given = {"input": "in", "output": "out", "phrases": "whole"} | options
    return prepare(AnnotateConfig.from_options(given), shards=shards)


def tars(number: int, size: int) -> list[Shard]:
    return [Shard(f"{n:05d}", f"/in/{n:05d}.tar", "tar", size) for n in range(number)]


@pytest.mark.parametrize(
    ("images_per_second", "image_bytes", "rows", "replicas", "size"),
    [
        (70, 200 * KIB, 10_000, 8, 256),  # five seconds of 70 images
        (0.5, 200 * KIB, 10_000, 8, 16),  # not fewer
        (5_000, 20 * KIB, 10_000, 8, 1024),  # not more
        (5_000, 1 * MIB, 10_000, 8, 128),  # 128 MiB
        (70, 60 * MIB, 10_000, 8, 2),
        (70, 200 * KIB, 100, 64, 16),  # 10,000 images in all for 64 replicas
        (70, 200 * KIB, 1_000, 64, 64),
        (70, 200 * KIB, None, 64, 256),
    ],
)
def test_a_chunk_is_some_seconds_of_work_within_bounds(
    images_per_second: float, image_bytes: float, rows: int | None, replicas: int, size: int
) -> None:
    job = job_of(tars(100, 500 * MIB))
    assert chunk_size_for(job, Speed(images_per_second, 1.0, image_bytes), rows, replicas) == size


def test_an_input_that_is_small_is_not_measured() -> None:
    fast = Speed(1000, 1.0, KIB)
    folder = Shard("all", "/in", "folder", 2_000)
    for job in (job_of(tars(3, MIB)), job_of(tars(100, 500 * MIB), limit=50), job_of([folder])):
        assert chunk_size_for(job, fast, None, 1) == 64
        assert replica_speed.choose_chunk_size(job, lambda: pytest.fail("Ray was started"), print) == 64
    unknown = Shard("x", "http://x/x.tar", "tar", None)
    assert chunk_size_for(job_of([*tars(3, MIB), unknown]), fast, None, 1) == 1024


def test_a_part_counts_its_own_images() -> None:
    speed = Speed(70, 1.0, 200 * KIB)
    shards = tars(100, 500 * MIB)
    assert chunk_size_for(job_of(shards), speed, 1_000, 32) == 128
    assert chunk_size_for(job_of(shards, part="1/4"), speed, 1_000, 32) == 32


class Sleeper:
    """20 ms an image, and 0.5 s more for its first one."""

    def __init__(self) -> None:
        self.called: list[int] = []

    def segment_images(self, images: Sequence[bytes], phrases: Sequence[Sequence[str]]) -> list[None]:
        time.sleep(0.02 * len(images) + 0.5 * (not self.called))
        self.called.append(len(images))
        return [None for _ in images]


def test_the_speed_is_that_of_warm_calls(tmp_path: Path) -> None:
    source = write_shards(tmp_path / "in", shards=1, samples=20)
    given = {"input": str(source), "output": "out", "phrases": "whole"}
    chunk = first_chunk(prepare(AnnotateConfig.from_options(given)), 20)
    phrases: list[list[Any]] = [[] for _ in chunk.samples]
    model = Sleeper()
    speed = time_chunk(lambda: model, chunk, phrases, 60.0)
    assert model.called == [1, 2, 4, 8, 5]
    assert 20 < speed.images_per_second < 50
    assert speed.image_bytes == sum(len(sample.image or b"") for sample in chunk.samples) / 20
    assert speed.memory_bytes > 2**26  # torch alone has more
    time_chunk(lambda: model, chunk, phrases, 60.0, enough=0.1)
    assert model.called[5:] == [1, 2, 4, 8]
