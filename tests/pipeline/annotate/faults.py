"""Segmenters, phrase sources and readers that fail on purpose; they travel to Ray's workers by name.

What needs torch is imported late: each process that dies imports this first.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.annotate.shard_reader import ShardTask
from pipeline.phrases import Phrase
from pipeline.sources import Chunk, ReadOptions, Sample, Shard, read_chunks
from sspsam.errors import OutOfMemoryError
from tests.pipeline.annotate.inputs import two_phrases

if TYPE_CHECKING:
    from sspsam.inference.results import ImageResult
    from sspsam.inference.segmenter import Segmenter

KILLER = b"this image kills"
HANGER = b"this image hangs"
HUNGRY = b"this image needs more memory"


class FaultySegmenter:
    """A Segmenter that dies on images that end in KILLER, hangs on HANGER, and so on."""

    overlapping_calls = True

    def __init__(self, inner: Segmenter, notes: Path, seconds_per_call: float) -> None:
        self._inner = inner
        self._notes = notes
        self._seconds = seconds_per_call
        self.timings = inner.timings

    def segment_images(self, images: Sequence[bytes], phrases: Sequence[Sequence[str]]) -> list[ImageResult]:
        (self._notes / f"replica-{os.getpid()}").touch()
        time.sleep(self._seconds)
        if any(image.endswith(KILLER) for image in images):
            os.kill(os.getpid(), signal.SIGKILL)
        if any(image.endswith(HANGER) for image in images):
            time.sleep(3600)
        results = self._inner.segment_images(images, phrases)
        if not (self._notes / "more-memory").exists():
            from sspsam.inference.results import ImageResult

            for position, image in enumerate(images):
                if image.endswith(HUNGRY):
                    error = OutOfMemoryError("one phrase does not fit")
                    results[position] = ImageResult(None, None, [], error, None)
        return results


@dataclass(frozen=True)
class LoadFaulty:
    """Makes a FaultySegmenter in a replica; `notes` is a folder where it leaves its process id."""

    model: Path
    notes: Path
    seconds_per_call: float = 0.0

    def inner(self) -> Segmenter:
        from pipeline.annotate.annotator import LoadSegmenter

        return LoadSegmenter(str(self.model), "cpu", threads=1)()

    def __call__(self) -> Any:
        return FaultySegmenter(self.inner(), self.notes, self.seconds_per_call)


class HangingSegmenter(FaultySegmenter):
    """A Segmenter whose third call never ends, once: a run as it stands still after a lost node."""

    calls = 0

    def segment_images(self, images: Sequence[bytes], phrases: Sequence[Sequence[str]]) -> list[ImageResult]:
        self.calls += 1
        hung = self._notes / "hung"
        if self.calls == 3 and not hung.exists():
            hung.touch()
            time.sleep(3600)
        return super().segment_images(images, phrases)


@dataclass(frozen=True)
class LoadHanging(LoadFaulty):
    """Makes a HangingSegmenter in a replica."""

    def __call__(self) -> Any:
        return HangingSegmenter(self.inner(), self.notes, 0.0)


def load_nothing() -> Segmenter:
    raise MemoryError("the weights do not fit")


def killing_phrases(samples: list[Sample]) -> list[list[Phrase]]:
    """Two phrases of each caption; a caption that says "kills" ends the process, "raises" raises."""
    if any("kills" in (sample.caption or "") for sample in samples):
        os.kill(os.getpid(), signal.SIGKILL)
    if any("raises" in (sample.caption or "") for sample in samples):
        raise KeyError("no such phrase")
    return two_phrases(samples)


def die_while_loading() -> Segmenter:
    os.kill(os.getpid(), signal.SIGKILL)
    return load_nothing()


def load_for_ever() -> Segmenter:
    time.sleep(3600)
    return load_nothing()


def killing_reader(shard: Shard, chunk_size: int, *, skip: Any = ()) -> Iterator[Chunk]:
    """Reads shards, and dies before the second chunk of the one that is named `crash`."""
    for chunk in read_chunks(shard, chunk_size, skip=skip, options=ReadOptions()):
        if shard.name == "crash" and chunk.index == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        yield chunk


@dataclass(frozen=True)
class FlakyReader:
    """Reads shards; of the one named 00001 the second chunk cannot be had the first time."""

    notes: Path

    def __call__(self, shard: Shard, chunk_size: int, *, skip: Any = ()) -> Iterator[Chunk]:
        for chunk in read_chunks(shard, chunk_size, skip=skip, options=ReadOptions()):
            failed = self.notes / "failed"
            if shard.name == "00001" and chunk.index == 1 and not failed.exists():
                failed.touch()
                raise ConnectionResetError("the connection broke")
            yield chunk


def broken_reader(shard: Shard, chunk_size: int, *, skip: Any = ()) -> Iterator[Chunk]:
    raise ConnectionResetError(f"{ShardTask(shard)}: gone")
