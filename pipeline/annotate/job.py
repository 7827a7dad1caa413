"""The annotate job: image/caption shards in, annotation rows out, every image accounted for once.

`receipts` is the chain; `annotate` plans what is left to do, runs it, and says what came of it.
"""

from __future__ import annotations

import functools
import pickle
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from pipeline.annotate import run_summary as summaries
from pipeline.annotate.allocation import READ_CPUS, Allocation, allocate, reallocate
from pipeline.annotate.annotate_config import AnnotateConfig
from pipeline.annotate.annotator import SegmenterFactory
from pipeline.annotate.chunk_writer import Writer
from pipeline.annotate.cluster import alive_nodes, connected, may_grow, settle_context
from pipeline.annotate.ledger import RemoteLedger, start_ledger
from pipeline.annotate.manifest import Manifest
from pipeline.annotate.prepare import Job, as_begun, caution, fingerprint, open_output, prepare
from pipeline.annotate.progress import Progress
from pipeline.annotate.receipts import Tasks, plan_tasks, survey
from pipeline.annotate.replica import ROWS_AT_ONCE, AfterChunk, Replica
from pipeline.annotate.replica_speed import choose_chunk_size
from pipeline.annotate.rounds import Bookkeeper, Plan, StartSealing, run_rounds
from pipeline.annotate.run_summary import RunSummary
from pipeline.annotate.seal import Sealed, seal_many
from pipeline.annotate.shard_reader import (
    Phraser,
    PhraseSource,
    Reader,
    ShardReader,
    count_limits,
    read_together,
)
from pipeline.annotate.watch import Patience
from pipeline.dataset.data_card import write_card
from pipeline.dataset.store import Store
from pipeline.sources import Shard

if TYPE_CHECKING:
    import ray.data


@dataclass(frozen=True)
class _Rows:
    """The rows that readers are given, in place of a list: each is made when Ray Data asks for it, once."""

    tasks: Tasks
    groups: list[range]

    def __len__(self) -> int:
        return len(self.groups)

    def __getitem__(self, number: int) -> dict[str, bytes]:
        return {"tasks": pickle.dumps([self.tasks.task(shard) for shard in self.groups[number]])}


def receipts(
    tasks: Tasks,
    job: Job,
    run: Manifest,
    store: Store,
    ledger: RemoteLedger,
    take: Allocation,
) -> ray.data.Dataset:
    """The chain. Rows: some shards' tasks -> chunks -> chunks with phrases -> how many are written."""
    import ray

    config = job.config
    rows: Any = _Rows(tasks, read_together(tasks.shards, take.read_tasks))
    each: dict[str, Any] = {"batch_size": 1, "batch_format": "pyarrow", "zero_copy_batch": True}
    reading: dict[str, Any] = {
        "num_cpus": READ_CPUS,
        "compute": ray.data.TaskPoolStrategy(min(take.read_tasks, len(rows))),
    } | each
    model: dict[str, Any] = {
        "num_cpus": take.cpus,
        "num_gpus": take.gpus or None,
        "memory": take.memory_bytes,
    } | each
    read = ShardReader(job.reader, run.options["chunk_size"], config.source.sample, ledger)
    replica: dict[str, Any] = {
        "segmenter_factory": job.segmenter_for(take, run.model["sha256"]),
        "phrase_source": job.phrase_source,
        "ledger": ledger,
        "writer": Writer(store, run.run_metadata(), run.image_root),
        "embed_images": config.output.embed_images,
        "image_timeout_seconds": config.compute.image_timeout,
        "after_chunk": job.after_chunk,
        "replicas": take.replicas[1],
        "verify": config.model.verify,
        "calibrated": job.calibration is not None,
    }
    pool = take.actor_pool(ROWS_AT_ONCE)
    chain = (
        ray.data.from_items(rows, override_num_blocks=len(rows))
        .map_batches(read, **reading)
        .map_batches(Phraser(job.phrase_source, ledger), **reading)
        .map_batches(Replica, fn_constructor_kwargs=replica, compute=pool, **model)
    )
    return settle_context(chain, config.compute.stall_timeout)


def sealing(store: Store) -> StartSealing:
    """Sealing as tasks of the cluster. They take no CPU, so that they never wait for the chain."""
    import ray

    task = ray.remote(seal_many).options(num_cpus=0, scheduling_strategy="SPREAD")

    def start(shards: list[tuple[str, int]]) -> Future[list[Sealed | str]]:
        future: Future[list[Sealed | str]] = task.remote(store, shards).future()
        return future

    return start


def annotate(
    config: AnnotateConfig,
    *,
    shards: Sequence[Shard] | None = None,
    reader: Reader | None = None,
    phrase_source: PhraseSource | None = None,
    segmenter_factory: SegmenterFactory | None = None,
    after_chunk: AfterChunk | None = None,
    say: Callable[[str], None] = print,
) -> RunSummary:
    """Annotate everything that `config` names and that OUTPUT does not hold yet.

    Args:
        shards, reader: what is read and how, instead of `config.source`; `reader(shard, chunk_size,
            skip=numbers)` yields chunks.
        phrase_source: phrases of each of a list of samples, instead of `config.phrases`.
        segmenter_factory: makes a replica's Segmenter, instead of `config.model`.
        after_chunk: runs in the replica as `after_chunk(chunk, phrases, results)` when a chunk is
            computed, before its file is written; it may run again after a fault. A sample with an
            error, or one that was set aside because it kills, has None for a result.

    Returns:
        The summary; its `exit_code` is 0 only if every image is accounted for.

    Raises:
        ConfigError: the options cannot work, do not fit the cluster, or are not those of OUTPUT.
        DataError: the input cannot be listed or OUTPUT not be written.
        CheckpointError: the model cannot be used.
    """
    started = time.monotonic()
    store = Store(config.output.output, config.source.storage_options)
    job = prepare(as_begun(config, store), shards, reader, phrase_source, segmenter_factory, after_chunk)
    with ExitStack() as running:

        @functools.cache
        def take() -> Allocation:
            running.enter_context(connected())
            return allocate(config.compute, alive_nodes, may_grow(), say)

        run, found = open_output(store, job, fingerprint(job), lambda job: choose_chunk_size(job, take, say))
        if reader is None and (warning := caution(job, run.model)):  # a caller's reader brings benchmarks
            say(warning)
        limits = count_limits(job.shards, job.reader, run.options["chunk_size"], config.source)
        wanted = [shard for shard in job.mine if limits is None or shard.name in limits]
        book = Bookkeeper(store, found, started)
        if any(shard.name not in found.ended for shard in wanted):
            taken = take()
            say(f"{len(wanted):,} shards, {len(found.ended):,} of them done; {taken.describe()}")
            with Progress(wanted, set(found.ended)) as progress:
                book = Bookkeeper(store, found, started, progress, sealing(store))
                _compute(job, run, book, taken, functools.partial(plan_tasks, wanted, limits=limits))
    result = book.conclude(config.output.output, wanted)
    whole = result
    if config.output.part is not None:
        names = [shard.name for shard in job.shards if limits is None or shard.name in limits]
        ended = survey(store, names, known=book.ended).ended
        if missing := len(names) - len(ended):
            say(f"part {config.output.part}: {missing:,} shards of all parts are not finished yet")
        whole = replace(result, shards=len(names), ended=len(ended), **summaries.totals(ended.values()))
    store.put(summaries.NAME, whole.to_json())
    write_card(store, asdict(run), asdict(whole), run.command())
    return result


def _compute(job: Job, run: Manifest, book: Bookkeeper, take: Allocation, plan: Plan) -> None:
    """Run the chain until nothing is missing, or as far as it goes."""
    compute = job.config.compute
    ledger = start_ledger()

    def chain(tasks: Tasks) -> ray.data.Dataset:
        now = reallocate(take, compute, alive_nodes, may_grow(), book.say)
        ledger.begin_chain(run.options["chunk_size"], now.replicas[1])
        return receipts(tasks, job, run, book.store, ledger, now)

    run_rounds(book, plan, chain, ledger, Patience(compute.stall_timeout, alive_nodes))
