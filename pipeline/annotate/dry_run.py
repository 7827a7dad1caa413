"""What a run would take, from listing its input and timing one chunk. Writes nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from pipeline.annotate.allocation import GIB, Allocation, allocate
from pipeline.annotate.annotate_config import AUTO, AnnotateConfig
from pipeline.annotate.cluster import alive_nodes, connected, may_grow
from pipeline.annotate.prepare import USUAL_CHUNK, Job, caution, fingerprint, prepare
from pipeline.annotate.replica_speed import (
    bytes_per_sample,
    chunk_size_for,
    first_chunk,
    shard_rows,
    time_chunk,
)
from pipeline.annotate.rows import clip
from pipeline.annotate.run_summary import duration
from pipeline.annotate.shard_reader import PhraseSource, find_alone, find_phrases
from pipeline.phrases import Phrase
from pipeline.sources import Sample, Shard
from pipeline.sources.settings import flag

_SHARDS_SHOWN = 10


@dataclass(frozen=True)
class Estimate:
    """What to expect of a run.

    Args:
        rows: of each shard; exact for Parquet and folders, None if unknown.
        images: about how many there are; None if the shards' sizes are not known.
        images_per_second: of one replica, in the steady state.
        seconds: of the whole run with `allocation`'s most replicas; None if `images` is.
        phrases_per_image: in the chunk that was timed.
        refused: of the images of that chunk, those for which finding phrases failed, and why the first did.
        load_seconds: to load the model.
        memory_bytes, gpu_bytes: the most that the process of one replica held; gpu_bytes 0 without a GPU.
    """

    shards: tuple[Shard, ...]
    rows: list[int | None]
    images: int | None
    images_per_second: float
    seconds: float | None
    phrases_per_image: float
    refused: tuple[int, str]
    load_seconds: float
    memory_bytes: int
    gpu_bytes: int
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
        gpu = f", {self.gpu_bytes / GIB:.1f} GiB of its GPU" if self.gpu_bytes else ""
        table.add_row("memory a replica", f"{self.memory_bytes / GIB:.1f} GiB{gpu}")
        replicas = self.allocation.replicas[1]
        table.add_row("all replicas", f"{self.images_per_second * replicas:,.2f} images/s")
        if self.seconds is not None:
            table.add_row("time to expect", f"{duration(self.seconds)} ({self.seconds / 3600:.2f} hours)")
            table.add_row("GPU-hours", f"{self.gpu_hours:.2f}")
        table.add_row("compute", self.allocation.describe())
        for name, value in sorted(self.options.items()):
            unsaid = value is False or value in (None, [], {}, "")
            if not unsaid and name not in ("input", "output", "dry_run"):
                table.add_row(flag(name), str(value))
        out.print(table)
        failed, why = self.refused
        if failed:
            out.print(f"{failed:,} of the images that were timed will be error rows: {why}", markup=False)


def dry_run(config: AnnotateConfig) -> Estimate:
    """List the input, time one replica on its first chunk.

    Raises:
        As `annotate`; DataError if the first chunk holds no image.
    """
    import ray

    job = prepare(config)
    digest = fingerprint(job)  # a model that cannot be had is said here, not from within a task
    if warning := caution(job, job.manifest(digest, config).model):
        print(warning)
    with connected():
        take = allocate(config.compute, alive_nodes, may_grow(), print)
        factory = job.segmenter_for(take)
        size = config.output.chunk_size
        chunk = first_chunk(job, USUAL_CHUNK if size == AUTO else size)
        timing = ray.remote(time_chunk).options(
            num_cpus=take.cpus, num_gpus=take.gpus, memory=take.memory_bytes
        )
        phrases, refused = ask(job.phrase_source, chunk.samples)
        speed = ray.get(timing.remote(factory, chunk, phrases, config.compute.image_timeout))
    replicas = take.replicas[1]
    rows = shard_rows(job, bytes_per_sample(chunk))
    images = _in_scope(job, rows)
    whole = None
    if images is not None:
        whole = speed.load_seconds + images / (speed.images_per_second * replicas)
    if size == AUTO:
        size = chunk_size_for(job, speed, rows[0], replicas)
    return Estimate(
        shards=tuple(job.shards),
        rows=rows,
        images=images,
        images_per_second=speed.images_per_second,
        seconds=whole,
        phrases_per_image=sum(map(len, phrases)) / len(phrases),
        refused=refused,
        load_seconds=speed.load_seconds,
        memory_bytes=speed.memory_bytes,
        gpu_bytes=speed.gpu_bytes,
        allocation=take,
        options=config.all_options() | {"chunk_size": size},
    )


def ask(source: PhraseSource, samples: list[Sample]) -> tuple[list[list[Phrase]], tuple[int, str]]:
    """The phrases of each sample, one at a time if together they fail, and `Estimate.refused`."""
    if (phrases := find_phrases(source, samples)) is not None:
        return phrases, (0, "")
    found = [[] if sample.error else find_alone(source, sample) for sample in samples]
    why = [clip(one[1]) for one in found if isinstance(one, tuple)]
    phrases = [[] if isinstance(one, tuple) else one for one in found]
    return phrases, (len(why), why[0] if why else "")


def _in_scope(job: Job, rows: list[int | None]) -> int | None:
    """About how many images the run covers, after --sample and --limit."""
    source = job.config.source
    known = [count for count in rows if count is not None]
    if len(known) < len(rows):
        return source.limit
    images = round(sum(known) * source.sample)
    return images if source.limit is None else min(images, source.limit)
