"""Model replicas: `Annotator` for anybody's `ds.map_batches`, `Replica` for the annotate job."""

from __future__ import annotations

import dataclasses
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa

from pipeline.annotate import chunks
from pipeline.annotate.chunk_writer import Writer
from pipeline.annotate.gate import Deadlines, Gate
from pipeline.annotate.ledger import MAX_FRUITLESS_STARTS, LedgerClient
from pipeline.annotate.rows import (
    KILLED_WORKER,
    PHRASE_SOURCE,
    Reason,
    annotation_row,
    annotation_struct,
    clip,
    reason_of,
    rows_table,
)
from pipeline.annotate.shard_reader import PhraseSource, worker
from pipeline.phrases import Phrase
from pipeline.sources import Chunk, Sample
from sspsam.errors import SSPSAMError
from sspsam.schema import ANNOTATION_TYPE, ERROR_TYPE, VERIFICATION_SIGNALS

if TYPE_CHECKING:
    from sspsam.inference.results import ImageResult
    from sspsam.open_models.protocol import PhraseSegmenter

#: Chunks that Ray hands to a replica at a time.
CHUNKS_AT_ONCE = 2
#: Images a batch on CUDA; the warm-up of a replica halves it until a batch fits into memory.
_IMAGES_ON_CUDA = 16

SegmenterFactory = Callable[[], "PhraseSegmenter"]
#: (chunk, its phrases, the result of each image or None where the model was not run) -> nothing.
AfterChunk = Callable[[Chunk, list[list[Phrase]], "list[ImageResult | None]"], None]


@dataclass(frozen=True)
class LoadSegmenter:
    """Loads the model from where it is stored; travels to the replicas in place of its weights.

    `sha256`: what the weights file must have; `threads`: torch's, on a CPU; `vocabulary`: phrases asked of
    every image, whose text features are all kept; `square_masks`, `max_pixels`, `decode`, `verify`: of
    SegmenterConfig; `home`: the folder that a relative `model` is of, unless the replica's node has none
    there; `options`: of a model that is not SSP-SAM (`sspsam.open_models`); `compiled`: of SegmenterConfig,
    on CUDA with `fast_float32`; None: where the device is CUDA.
    """

    model: str
    device: str | None = None
    sha256: str | None = None
    threads: int | None = None
    vocabulary: int = 0
    square_masks: bool = False
    home: str = dataclasses.field(default_factory=os.getcwd)
    max_pixels: int | None = None
    decode: Literal["exact", "reduced"] = "exact"
    verify: Literal["none", "fast", "full"] = "none"
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    compiled: bool | None = None

    def __call__(self) -> PhraseSegmenter:
        import torch

        from sspsam import SSPSAM
        from sspsam.checkpoint import located_model
        from sspsam.inference.results import SegmenterConfig
        from sspsam.inference.segmenter import Segmenter
        from sspsam.modeling.precision import fast_float32
        from sspsam.open_models.named import is_open_model, named_model

        if self.threads:
            torch.set_num_threads(self.threads)
        usual = SegmenterConfig()
        usual = dataclasses.replace(usual, max_pixels=self.max_pixels or usual.max_pixels)
        if is_open_model(self.model):
            return named_model(self.model, self.options, self.home).load(self.device, usual, self.sha256)
        model = located_model(self.model, self.home)
        loaded = SSPSAM.from_pretrained(model, device=self.device, sha256=self.sha256)
        on_cuda = loaded.device.type == "cuda"
        compiled = on_cuda if self.compiled is None else self.compiled
        if compiled and on_cuda:
            fast_float32()
        segmenter = Segmenter(
            loaded,
            dataclasses.replace(
                usual,
                images_per_batch=_IMAGES_ON_CUDA if on_cuda else usual.images_per_batch,
                cached_phrases=max(usual.cached_phrases, self.vocabulary),
                square_masks=self.square_masks,
                decode=self.decode,
                verify=self.verify,
                compiled=compiled,
            ),
        )
        if compiled:
            segmenter.warm_up()
        return segmenter


class Annotator:
    """Draws masks for batches of images; hand the class to Ray Data, each actor loads one model::

        ds.map_batches(
            pipeline.Annotator,
            fn_constructor_kwargs={"model": "tiny"},
            compute=ray.data.ActorPoolStrategy(size=4),
            batch_size=16,
            num_gpus=1,
            batch_format="pyarrow",
        )

    Args:
        model: as `SSPSAM.from_pretrained` takes it, or another open model as `--model` takes it.
        model_options: of another open model.
        device: cpu, cuda or mps; None takes the best there is.
        image_column: encoded bytes, or the Hugging Face struct<bytes, path>.
        phrase_column: lists of phrases, or one phrase an image.
        segmenter_factory: makes the segmenter instead of `model`, `model_options` and `device`.
    """

    def __init__(
        self,
        model: str = "tiny",
        *,
        model_options: Mapping[str, Any] | None = None,
        device: str | None = None,
        image_column: str = "image",
        phrase_column: str = "phrases",
        segmenter_factory: SegmenterFactory | None = None,
    ) -> None:
        self._segmenter = (segmenter_factory or LoadSegmenter(model, device, options=model_options or {}))()
        self._image_column = image_column
        self._phrase_column = phrase_column

    def __call__(self, batch: pa.Table) -> pa.Table:
        """The batch with columns `width`, `height`, `annotations` and `error` added (see the schema).

        An image that cannot be used has an `error` and no annotations; the others are unaffected.
        """
        phrases = [
            [Phrase(text, None, None) for text in ([given] if isinstance(given, str) else given or [])]
            for given in batch[self._phrase_column].to_pylist()
        ]
        images = [
            image["bytes"] if isinstance(image, dict) else image
            for image in batch[self._image_column].to_pylist()
        ]
        results = segment_images(self._segmenter, images, phrases)
        structs: list[list[dict[str, Any]]] = []
        errors: list[dict[str, str] | None] = []
        for asked, outcome in zip(phrases, results, strict=True):
            reason = outcome if isinstance(outcome, tuple) else _error_of(outcome)
            errors.append({"kind": reason[0], "message": clip(reason[1])} if reason else None)
            masks = [] if reason or isinstance(outcome, tuple) else outcome.masks
            structs.append([annotation_struct(p, m) for p, m in zip(asked, masks, strict=False)])
        columns = {
            "width": pa.array([getattr(r, "width", None) for r in results], pa.int32()),
            "height": pa.array([getattr(r, "height", None) for r in results], pa.int32()),
            "annotations": pa.array(structs, pa.list_(ANNOTATION_TYPE)),
            "error": pa.array(errors, ERROR_TYPE),
        }
        for name, values in columns.items():
            batch = batch.append_column(name, values)
        return batch


def _error_of(result: ImageResult) -> Reason | None:
    return None if result.error is None else reason_of(result.error)


class Replica:
    """The annotate stage: one model, chunk rows in, files written, receipts out.

    Tells the ledger which samples it is about to compute, so that whoever comes back after a death
    knows where it happened (`pipeline.annotate.ledger`). Ray calls it from `CHUNKS_AT_ONCE` threads: where
    the Segmenter has `overlapping_calls`, the next chunk is decoded while the last one is finished. Chunks
    are written here, and not by a stage of their own, because a task costs Ray Data's driver milliseconds.

    Args:
        phrase_source: for chunks whose phrases could not be found all at once.
        embed_images: keep the encoded images in the rows.
        image_timeout_seconds: a run of n samples that takes longer than n times this ends the
            process, and counts as a death.
        after_chunk: called when a chunk is computed, before it is written; one call at a time.
        verify: the level whose signals the rows have, null from a Segmenter that does not give them.
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
        self._gate = Gate()
        self._deadlines = Deadlines(image_timeout_seconds)
        self._hook, self._books = threading.Lock(), threading.Lock()  # the second is of what follows
        self._under_way = 0
        self._free_since = time.perf_counter()
        self._told: dict[str, float] = dict.fromkeys(TIMED, 0.0) | dict(self._segmenter.timings)

    def __call__(self, table: pa.Table) -> pa.Table:
        """`table`: one row of CHUNK_SCHEMA. Returns one row with the receipts' JSON."""
        done = [self._compute(*travelling) for travelling in chunks.from_table(table)]
        receipts = [receipt.to_json() for receipt in self._writer.write_all(done)]
        return pa.table({"receipts": [receipts]})

    def _compute(
        self, chunk: Chunk, phrases: list[list[Phrase]] | None, notes: dict[str, Any]
    ) -> tuple[Chunk, pa.Table, dict[str, Any]]:
        """The chunk's annotation rows and what it took."""
        started = time.perf_counter()
        with self._books:
            idle = 0.0 if self._under_way else started - self._free_since
            self._under_way += 1
        phrases, results, reasons = self._annotate(chunk, phrases)
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
        self, chunk: Chunk, phrases: list[list[Phrase]] | None
    ) -> tuple[list[list[Phrase]], list[ImageResult | None], list[Reason | None]]:
        """Phrases, result and reason of each sample, span by span as the ledger says."""
        count = len(chunk.samples)
        asked: list[list[Phrase]] = phrases or [[] for _ in range(count)]
        results: list[ImageResult | None] = [None] * count
        reasons: list[Reason | None] = [sample.error for sample in chunk.samples]
        key = f"annotate {chunk.shard.name} {chunk.index}"
        together = getattr(self._segmenter, "overlapping_calls", False) and phrases is not None
        with self._gate.enter(alone=not together or self._ledger.suspect(key)):
            plan = self._ledger.begin(key, count, worker())
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
            self._ledger.end(key)
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
                try:
                    (asked[position],) = self._phrase_source([samples[position]])
                except Exception as error:  # a user's source may raise anything
                    kind, message = reason_of(error)
                    ours = isinstance(error, SSPSAMError)
                    reasons[position] = (kind if ours else PHRASE_SOURCE, message)

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


def segment_images(
    segmenter: PhraseSegmenter, images: Sequence[Any], phrases: Sequence[Sequence[Phrase]]
) -> list[ImageResult | Reason]:
    """`segmenter.segment_images`; an error of the whole call is pinned to the images that cause it."""
    if not images:
        return []
    texts = [[phrase.text for phrase in asked] for asked in phrases]
    try:
        return list(segmenter.segment_images(images, texts))
    except Exception as error:
        if _device_is_lost(error):
            # No later call in this process can succeed; a new one may. The ledger counts it.
            print(f"the GPU's context is lost: {error}", file=sys.stderr, flush=True)
            os._exit(70)
        if len(images) == 1:
            return [reason_of(error)]
        return [
            segment_images(segmenter, [image], [asked])[0]
            for image, asked in zip(images, phrases, strict=True)
        ]


def _device_is_lost(error: BaseException) -> bool:
    text = str(error)
    lost = "CUDA error" in text or "device-side assert" in text
    return lost and not isinstance(error, SSPSAMError) and "out of memory" not in text


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
