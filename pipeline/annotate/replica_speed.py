"""How fast one replica is, timed on the first chunk of the input: for the dry run and `--chunk-size auto`."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.annotate.allocation import Allocation
from pipeline.annotate.annotator import segment_images
from pipeline.annotate.gate import Deadlines
from pipeline.annotate.prepare import USUAL_CHUNK, Job
from pipeline.annotate.shard_reader import ShardTask, find_phrases, select_chunks
from pipeline.sources import Chunk, Shard
from pipeline.sources.storage import filesystem
from sspsam.errors import DataError

_THREADS = 16

#: A chunk is so much work of a replica: much longer than what it costs the driver, little to lose.
_CHUNK_SECONDS = 5.0
_FEWEST, _MOST = 16, 1024
#: Encoded images of a chunk: the object store holds about three chunks a replica.
_CHUNK_BYTES = 128 << 20
#: Chunks a replica at least, so that all of them end at about the same time.
_CHUNKS_OF_REPLICA = 16
#: Inputs that are not worth a measurement: bytes of tars and Parquet files, images of folders.
_SMALL_BYTES, _SMALL_IMAGES = 64 << 20, 2048
#: Enough to time. A call for twice as many images follows until one takes so long.
_TIMED_SECONDS = 1.0
_SHARDS_TRIED = 100


@dataclass(frozen=True)
class Speed:
    """Of one replica: images/s once everything is warm, seconds to load the model, bytes of an image.

    memory_bytes, gpu_bytes: the most that its process held of either until then; gpu_bytes 0 without CUDA.
    """

    images_per_second: float
    load_seconds: float
    image_bytes: float
    memory_bytes: int = 0
    gpu_bytes: int = 0


def choose_chunk_size(job: Job, take: Callable[[], Allocation], say: Callable[[str], None]) -> int:
    """Images a chunk: what one replica does in some seconds, a power of two.

    A small input is not timed, and what cannot be timed, because it kills its process say, gets the
    usual chunks: the run itself says what is wrong.

    Args:
        take: starts Ray and says what the run takes of it.
    """
    import ray
    from ray.exceptions import RayError

    if _is_small(job):
        return USUAL_CHUNK
    taken = take()
    some = replace(job, shards=job.mine[:_SHARDS_TRIED])
    timing = ray.remote(_measure).options(
        num_cpus=taken.cpus, num_gpus=taken.gpus or None, memory=taken.memory_bytes, max_retries=0
    )
    timed = timing.remote(some, job.segmenter_for(taken))
    try:
        speed, rows = ray.get(timed, timeout=job.config.compute.stall_timeout)
    except RayError as error:
        ray.cancel(timed, force=True)
        why = str(error).strip().splitlines()[-1][:200]
        say(f"chunks of {USUAL_CHUNK} images: the speed of a replica could not be measured ({why})")
        return USUAL_CHUNK
    size = chunk_size_for(job, speed, rows, taken.replicas[1])
    say(f"chunks of {size:,} images: one replica draws {speed.images_per_second:,.1f} a second")
    return size


def chunk_size_for(job: Job, speed: Speed, rows: int | None, replicas: int) -> int:
    """The largest power of two that keeps to all bounds.

    Args:
        rows: of the job's first shard, None if that is not known.
    """
    if _is_small(job):
        return USUAL_CHUNK
    images = _images(job, rows)
    most = [_MOST, speed.images_per_second * _CHUNK_SECONDS, _CHUNK_BYTES / max(1.0, speed.image_bytes)]
    if images is not None:
        most.append(images / (replicas * _CHUNKS_OF_REPLICA))
    fewest = min(_FEWEST, max(1, int(most[2])))
    return max(fewest, 2 ** int(math.log2(max(1.0, min(most)))))


def _images(job: Job, rows: int | None) -> float | None:
    """About how many images this job has, from those of its first shard; None if that is not known."""
    sizes = [shard.size for shard in job.mine]
    if rows is None or not sizes[0] or None in sizes:
        return None
    source = job.config.source
    found = rows * sum(size or 0 for size in sizes) / sizes[0] * source.sample
    return found if source.limit is None else min(found, source.limit)


def _is_small(job: Job) -> bool:
    """Whether there is too little to do to measure anything first."""
    known = [shard.size or math.inf for shard in job.shards if shard.format != "folder"]
    counted = [shard.size or 0 for shard in job.shards if shard.format == "folder"]
    limit = job.config.source.limit or math.inf
    return limit <= _SMALL_IMAGES or (sum(known) <= _SMALL_BYTES and sum(counted) <= _SMALL_IMAGES)


def _measure(job: Job, factory: Callable[[], Any]) -> tuple[Speed, int | None]:
    """In a task: the speed of a replica, and how many samples the first shard has, None if unknown."""
    chunk = first_chunk(job, USUAL_CHUNK)
    phrases = find_phrases(job.phrase_source, chunk.samples) or [[] for _ in chunk.samples]
    timeout = job.config.compute.image_timeout
    rows = shard_rows(replace(job, shards=job.shards[:1]), bytes_per_sample(chunk))[0]
    return time_chunk(factory, chunk, phrases, timeout, enough=_TIMED_SECONDS), rows


def first_chunk(job: Job, size: int) -> Chunk:
    """The first chunk of `size` samples with an image in it. Raises DataError if there is none."""
    source = job.config.source
    for shard in job.shards:
        task = ShardTask(shard, limit=source.limit)
        for chunk in select_chunks(task, job.reader, size, source.sample):
            if any(sample.image and sample.error is None for sample in chunk.samples):
                return chunk
    raise DataError(f"INPUT {source.input} holds no image that can be read")


def time_chunk(
    factory: Callable[[], Any],
    chunk: Chunk,
    phrases: list[list[Any]],
    image_timeout: float,
    enough: float = math.inf,
) -> Speed:
    """Load the model and annotate the chunk by calls for 1, 2, 4, ... of its images.

    Args:
        image_timeout: seconds allowed an image; a call that takes longer ends the process.
        enough: a call of so many seconds is the last one.
    """
    import resource

    import torch

    started = time.perf_counter()
    segmenter = factory()
    loaded = time.perf_counter() - started
    usable = [s.error is None for s in chunk.samples]
    images = [s.image or b"" for s, good in zip(chunk.samples, usable, strict=True) if good]
    asked = [p for p, good in zip(phrases, usable, strict=True) if good]
    deadlines = Deadlines(image_timeout)
    at, count, rate = 0, 1, 0.0
    while at < len(images):
        some = slice(at, at + count)
        begun = time.perf_counter()
        with deadlines.of(count):
            segment_images(segmenter, images[some], asked[some])
        seconds = max(time.perf_counter() - begun, 1e-6)
        rate = max(rate, len(images[some]) / seconds)
        if at and seconds >= enough:  # the first call warms everything up
            break
        at, count = at + count, 2 * count
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    gpu = torch.cuda.max_memory_reserved() if torch.cuda.is_available() else 0
    return Speed(rate, loaded, sum(map(len, images)) / max(1, len(images)), memory, gpu)


def shard_rows(job: Job, bytes_per_sample: float) -> list[int | None]:
    """Rows of each shard: exact for Parquet and folders, by its bytes for a tar, None if unknown."""

    def count(shard: Shard) -> int | None:
        if shard.format == "parquet":
            fs, path = filesystem(shard.url, job.config.source.storage_options)
            try:
                with fs.open(path, "rb") as file:
                    return int(pq.ParquetFile(file).metadata.num_rows)
            except (OSError, pa.ArrowInvalid):  # the run reports it as an error row
                return None
        if shard.format == "folder" or shard.size is None:
            return shard.size
        return round(shard.size / bytes_per_sample)

    with ThreadPoolExecutor(_THREADS) as pool:
        return list(pool.map(count, job.shards))


def bytes_per_sample(chunk: Chunk) -> float:
    """Bytes of a tar that one sample takes, by where the chunk's last image ends in it."""
    last = chunk.samples[-1].ref
    end = (last.get("offset") or 0) + (last.get("length") or 0)
    first = chunk.samples[0].index
    if end and chunk.samples[-1].error is None:
        return end / (chunk.samples[-1].index + 1)
    size = sum(len(sample.image or b"") for sample in chunk.samples)
    return max(1.0, size / max(1, chunk.samples[-1].index + 1 - first))
