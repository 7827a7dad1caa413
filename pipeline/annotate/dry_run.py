"""What a run would take, from listing its input and timing one chunk. Writes nothing."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from pipeline.annotate.allocation import Allocation, allocate
from pipeline.annotate.annotate_config import AnnotateConfig, flag
from pipeline.annotate.cluster import alive_nodes, connect, may_grow
from pipeline.annotate.manifest import Manifest
from pipeline.annotate.prepare import Job, caution, fingerprint, prepare
from pipeline.annotate.run_summary import duration
from pipeline.annotate.shard_reader import ShardTask, find_phrases, select_chunks
from pipeline.sources import Chunk, Shard
from pipeline.sources.storage import filesystem
from sspsam.errors import DataError

_SHARDS_SHOWN = 10
_THREADS = 16


@dataclass(frozen=True)
class Estimate:
    """What to expect of a run.

    Args:
        rows: of each shard; exact for Parquet and folders, None if unknown.
        images: about how many there are; None if the shards' sizes are not known.
        images_per_second: of one replica, in the steady state.
        seconds: of the whole run with `allocation`'s most replicas; None if `images` is.
        phrases_per_image: in the chunk that was timed.
        load_seconds: to load the model.
    """

    shards: tuple[Shard, ...]
    rows: list[int | None]
    images: int | None
    images_per_second: float
    seconds: float | None
    phrases_per_image: float
    load_seconds: float
    allocation: Allocation
    options: dict[str, Any]

    @property
    def gpu_hours(self) -> float:
        """GPUs held times hours, 0 on CPUs."""
        replicas = self.allocation.replicas[1]
        return (self.seconds or 0.0) / 3600 * replicas * self.allocation.gpus

    def print(self, console: Console | None = None) -> None:
        out = console or Console(highlight=False)
        for shard, count in zip(self.shards[:_SHARDS_SHOWN], self.rows, strict=False):
            about = "about " if shard.format == "tar" else ""
            rows = "? rows" if count is None else f"{about}{count:,} rows"
            out.print(f"{shard.name}  {shard.format}  {rows}  {shard.url}", markup=False)
        if len(self.shards) > _SHARDS_SHOWN:
            out.print(f"... and {len(self.shards) - _SHARDS_SHOWN:,} more shards", markup=False)
        table = Table(title="dry run: nothing was written", show_header=False, title_justify="left")
        table.add_column(style="bold")
        table.add_column()
        table.add_row("shards", f"{len(self.shards):,}")
        images = "unknown" if self.images is None else f"about {self.images:,}"
        table.add_row("images", images)
        table.add_row("phrases an image", f"{self.phrases_per_image:.1f}")
        table.add_row("one replica", f"{self.images_per_second:,.2f} images/s")
        table.add_row("model loads in", duration(self.load_seconds))
        replicas = self.allocation.replicas[1]
        table.add_row("all replicas", f"{self.images_per_second * replicas:,.2f} images/s")
        if self.seconds is not None:
            table.add_row("time to expect", f"{duration(self.seconds)} ({self.seconds / 3600:.2f} hours)")
            table.add_row("GPU-hours", f"{self.gpu_hours:.2f}")
        table.add_row("compute", self.allocation.describe())
        for name, value in sorted(self.options.items()):
            if value not in (None, False, [], "") and name not in ("input", "output", "dry_run"):
                table.add_row(flag(name), str(value))
        out.print(table)


def dry_run(config: AnnotateConfig) -> Estimate:
    """List the input, annotate its first chunk twice in one replica, time the second time.

    Raises:
        As `annotate`; DataError if the first chunk holds no image.
    """
    import ray

    job = prepare(config)
    digest = fingerprint(job)  # a model that cannot be had is said here, not from within a task
    if warning := caution(job, Manifest.of(config, job.shards, digest).model):
        print(warning)
    local = connect()
    try:
        take = allocate(config.compute, alive_nodes, may_grow(), print)
        factory = job.segmenter_for(take)
        chunk = _first_chunk(job)
        timing = ray.remote(_time_chunk).options(
            num_cpus=take.cpus, num_gpus=take.gpus, memory=take.memory_bytes
        )
        phrases = find_phrases(job.phrase_source, chunk.samples) or [[] for _ in chunk.samples]
        load, seconds = ray.get(timing.remote(factory, chunk, phrases))
    finally:
        if local:
            ray.shutdown()
    rate = len(chunk.samples) / seconds
    rows = count_rows(job, _bytes_per_sample(chunk))
    images = _in_scope(job, rows)
    whole = None if images is None else load + images / (rate * take.replicas[1])
    return Estimate(
        shards=tuple(job.shards),
        rows=rows,
        images=images,
        images_per_second=rate,
        seconds=whole,
        phrases_per_image=sum(map(len, phrases)) / len(phrases),
        load_seconds=load,
        allocation=take,
        options=config.all_options(),
    )


def _first_chunk(job: Job) -> Chunk:
    """The first chunk with an image in it."""
    config = job.config
    for shard in job.shards:
        task = ShardTask(shard, limit=config.source.limit)
        for chunk in select_chunks(task, job.reader, config.output.chunk_size, config.source.sample):
            if any(sample.image for sample in chunk.samples):
                return chunk
    raise DataError(f"INPUT {config.source.input} holds no image that can be read")


def count_rows(job: Job, bytes_per_sample: float) -> list[int | None]:
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


def _bytes_per_sample(chunk: Chunk) -> float:
    """Bytes of a tar that one sample takes, by where the chunk's last image ends in it."""
    last = chunk.samples[-1].ref
    end = (last.get("offset") or 0) + (last.get("length") or 0)
    first = chunk.samples[0].index
    if end and chunk.samples[-1].error is None:
        return end / (chunk.samples[-1].index + 1)
    size = sum(len(sample.image or b"") for sample in chunk.samples)
    return max(1.0, size / max(1, chunk.samples[-1].index + 1 - first))


def _in_scope(job: Job, rows: list[int | None]) -> int | None:
    """About how many images the run covers, after --sample and --limit."""
    source = job.config.source
    known = [count for count in rows if count is not None]
    if len(known) < len(rows):
        return source.limit
    images = round(sum(known) * source.sample)
    return images if source.limit is None else min(images, source.limit)


def _time_chunk(factory: Any, chunk: Chunk, phrases: list[list[Any]]) -> tuple[float, float]:
    """Seconds to load the model, and to annotate the chunk once everything is warm."""
    from pipeline.annotate.replica import segment_images

    started = time.perf_counter()
    segmenter = factory()
    loaded = time.perf_counter() - started
    usable = [s.error is None for s in chunk.samples]
    images = [s.image for s, good in zip(chunk.samples, usable, strict=True) if good]
    asked = [p for p, good in zip(phrases, usable, strict=True) if good]
    seconds = 0.0
    for _ in range(2):
        begun = time.perf_counter()
        segment_images(segmenter, images, asked)
        seconds = time.perf_counter() - begun
    return loaded, max(seconds, 1e-6)
