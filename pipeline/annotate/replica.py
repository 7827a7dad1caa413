"""`Replica`: one model in an actor of the annotate job, chunks in, written files and their receipts out."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from pipeline.annotate import chunks
from pipeline.annotate.annotator import SegmenterFactory, segment_images
from pipeline.annotate.chunk_writer import Writer
from pipeline.annotate.gate import Deadlines, Gate
from pipeline.annotate.ledger import MAX_FRUITLESS_STARTS, LedgerClient, chunk_key
from pipeline.annotate.rows import (
    KILLED_WORKER,
    Reason,
    annotation_row,
    rows_table,
)
from pipeline.annotate.shard_reader import TOLD_SAMPLES, PhraseSource, find_alone
from pipeline.annotate.works import Works, worker
from pipeline.dataset.calibration import Calibration
from pipeline.phrases import Phrase
from pipeline.sources import Chunk, Sample
from sspsam.schema import VERIFICATION_SIGNALS

if TYPE_CHECKING:
    from sspsam.inference.results import ImageResult

#: Rows that Ray hands to a replica at a time, each computed chunk by chunk.
ROWS_AT_ONCE = 2
#: Chunks of a row that are being written while the next is computed; most of it is waiting for the store.
_WRITTEN_AT_ONCE = 16
#: (chunk, its phrases, the result of each image or None where the model was not run) -> nothing.
AfterChunk = Callable[[Chunk, list[list[Phrase]], "list[ImageResult | None]"], None]

#: A chunk, its annotation rows, and measurements of it.
_Computed = tuple[Chunk, pa.Table, dict[str, Any]]


class Replica:
    """The annotate stage: one model, rows of chunks in, files written, their receipts told to the ledger.

    Tells the ledger which samples it is about to compute, so that whoever comes back after a death
    knows where it happened (`pipeline.annotate.ledger`). Ray calls it from `ROWS_AT_ONCE` threads: where
    the Segmenter has `overlapping_calls`, the next chunk is decoded while the last one is finished. Chunks
    are written here, and not by a stage of their own, because a task costs Ray Data's driver milliseconds.

    Args:
        phrase_source: for chunks whose phrases could not be found all at once.
        embed_images: keep the encoded images in the rows.
        image_timeout_seconds: a run of n samples that takes longer than n times this ends the
            process, and counts as a death.
        after_chunk: called when a chunk is computed, before it is written; one call at a time.
        verify: the level whose signals the rows have, null from a Segmenter that does not give them.
        calibrated: whether the rows have what APPLIED says of them. It is read from OUTPUT: an actor with
            arguments so large may not come back after its node is lost.
        replicas: how many there may be, which all start before the first finishes anything.
    """

    def __init__(
        self,
        segmenter_factory: SegmenterFactory,
        phrase_source: PhraseSource,
        ledger: LedgerClient,
        writer: Writer,
        embed_images: bool = False,
        image_timeout_seconds: float = 120.0,
        after_chunk: AfterChunk | None = None,
        replicas: int = 1,
        verify: str = "none",
        calibrated: bool = False,
    ) -> None:
        if ledger.started(worker()) >= MAX_FRUITLESS_STARTS + replicas:
            raise RuntimeError(
                f"replicas died {MAX_FRUITLESS_STARTS} times in a row before finishing anything: see "
                "their logs; often the model does not fit into memory (fewer --replicas a node)"
            )
        self._segmenter = segmenter_factory()
        self._phrase_source = phrase_source
        self._ledger = ledger
        self._writer = writer
        self._embed_images = embed_images
        self._image_timeout = image_timeout_seconds
        self._after_chunk = after_chunk
        self._signals = VERIFICATION_SIGNALS[verify]
        self._calibration = Calibration.applied(writer.store) if calibrated else None
        self._gate = Gate()
        self._deadlines = Deadlines(image_timeout_seconds)
        self._hook, self._books = threading.Lock(), threading.Lock()  # the second is of what follows
        self._under_way = 0
        self._free_since = time.perf_counter()
        self._told: dict[str, float] = dict.fromkeys(TIMED, 0.0) | dict(self._segmenter.timings)

    def __call__(self, table: pa.Table) -> pa.Table:
        """`table`: one row of CHUNK_SCHEMA. Returns one row with the number of its chunks, all written."""
        numbers = chunks.numbers(table)
        standing = self._ledger.standing(numbers)
        each = zip(numbers, chunks.sizes(table), standing, strict=True)
        pieces = ((chunk_key(*number), size, size) for number, size, found in each if found != "written")
        works = Works(self._ledger, pieces, TOLD_SAMPLES)
        writing: list[Future[None]] = []
        computed: list[_Computed] = []
        with ThreadPoolExecutor(min(len(numbers), _WRITTEN_AT_ONCE)) as pool:
            for travelling, found in zip(chunks.from_table(table), standing, strict=True):
                if found == "written":
                    continue
                computed.append(self._compute(*travelling, alone=found == "suspect", works=works))
                if not works.ahead:  # chunks that were begun together are written together
                    writing.append(pool.submit(self._write, computed))
                    computed = []
        for written in writing:
            written.result()
        self._ledger.end_row(numbers)
        return pa.table({"chunks": [len(numbers)]})

    def _write(self, computed: Sequence[_Computed]) -> None:
        receipts = []
        try:
            for chunk, rows, notes in computed:
                receipts.append(self._writer.write(chunk, rows, notes))
        except BaseException:
            self._ledger.end(*(chunk_key(chunk.shard.name, chunk.index) for chunk, _, _ in computed))
            raise  # nobody died
        finally:
            self._ledger.written(*receipts)

    def _compute(
        self,
        chunk: Chunk,
        phrases: list[list[Phrase]] | None,
        notes: dict[str, Any],
        alone: bool,
        works: Works,
    ) -> _Computed:
        """The chunk's annotation rows and what it took.

        Args:
            alone: nothing else is computed meanwhile.
            works: of which the chunk is the next.
        """
        started = time.perf_counter()
        with self._books:
            idle = 0.0 if self._under_way else started - self._free_since
            self._under_way += 1
        phrases, results, reasons = self._annotate(chunk, phrases, alone, works)
        if self._after_chunk is not None:
            with self._hook:
                self._after_chunk(chunk, phrases, results)
        encoding = time.perf_counter()
        made = (
            annotation_row(
                sample,
                chunk.shard.name,
                asked,
                result,
                reason,
                self._embed_images,
                None if asked or reason else self._why_none(sample),
            )
            for sample, asked, result, reason in zip(chunk.samples, phrases, results, reasons, strict=True)
        )
        rows = rows_table(made, self._signals)
        if self._calibration is not None:
            rows = self._calibration.apply(rows)
        with self._books:
            # Chunks overlap: each is told the time since the one before ended, so that sums are right.
            ended, timings = time.perf_counter(), dict(self._segmenter.timings)
            notes |= _stage_notes({name: timings[name] - self._told[name] for name in TIMED})
            notes["encode_seconds"] += ended - encoding
            notes["idle_seconds"] = idle
            notes["busy_seconds"] = ended - max(started, self._free_since)
            self._free_since, self._told = ended, timings
            self._under_way -= 1
        return chunk, rows, notes

    def _annotate(
        self, chunk: Chunk, phrases: list[list[Phrase]] | None, alone: bool, works: Works
    ) -> tuple[list[list[Phrase]], list[ImageResult | None], list[Reason | None]]:
        """Phrases, result and reason of each sample, span by span as the ledger says."""
        count = len(chunk.samples)
        asked: list[list[Phrase]] = phrases or [[] for _ in range(count)]
        results: list[ImageResult | None] = [None] * count
        reasons: list[Reason | None] = [sample.error for sample in chunk.samples]
        key = chunk_key(chunk.shard.name, chunk.index)
        together = getattr(self._segmenter, "overlapping_calls", False) and phrases is not None
        with self._gate.enter(alone=alone or not together):
            plan = works.begin()
            for position in plan.quarantine:
                reasons[position] = (
                    KILLED_WORKER,
                    "annotating this image by itself ended its process twice (crash, out of memory, or "
                    f"more than {self._image_timeout:g} s)",
                )
            for number, (low, high) in enumerate(plan.run):
                if number:
                    self._ledger.advance(key, (low, high))
                with self._deadlines.of(high - low):
                    span = range(low, high)
                    if phrases is None:
                        self._ask(chunk.samples, span, asked, reasons)
                    self._segment(chunk.samples, span, asked, results, reasons)
        return asked, results, reasons

    def _why_none(self, sample: Sample) -> Reason | None:
        """What the phrase source says of a sample that it gave no phrases; a user's function need not."""
        why = getattr(self._phrase_source, "why_none", None)
        return why(sample) if why else None

    def _ask(
        self,
        samples: Sequence[Sample],
        span: range,
        asked: list[list[Phrase]],
        reasons: list[Reason | None],
    ) -> None:
        """Find the phrases of a span, one sample at a time: together they failed before."""
        for position in span:
            if reasons[position] is None:
                found = find_alone(self._phrase_source, samples[position])
                if isinstance(found, tuple):
                    reasons[position] = found
                else:
                    asked[position] = found

    def _segment(
        self,
        samples: Sequence[Sample],
        span: range,
        asked: list[list[Phrase]],
        results: list[ImageResult | None],
        reasons: list[Reason | None],
    ) -> None:
        """Run the model on the samples of a span that nothing is wrong with."""
        positions = [position for position in span if reasons[position] is None]
        images = [samples[position].image or b"" for position in positions]
        outcomes = segment_images(self._segmenter, images, [asked[p] for p in positions])
        for position, outcome in zip(positions, outcomes, strict=True):
            if isinstance(outcome, tuple):
                reasons[position] = outcome
            else:
                results[position] = outcome


#: Names in `Segmenter.timings` (seconds since it was made, and counts of batch slots).
TIMED = ("decode", "image", "phrase", "rle", "images", "image_slots", "phrases", "phrase_slots")


def _stage_notes(spent: dict[str, float]) -> dict[str, float]:
    """A chunk's timings as receipt notes: seconds by stage, occupancy of the model's batches."""
    notes = {
        "decode_seconds": spent["decode"],
        "model_seconds": spent["image"] + spent["phrase"],
        "encode_seconds": spent["rle"],
    }
    for batch in ("image", "phrase"):
        if slots := spent[f"{batch}_slots"]:
            notes[f"{batch}_occupancy"] = spent[f"{batch}s"] / slots
    return notes
