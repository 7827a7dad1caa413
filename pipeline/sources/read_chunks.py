"""Chunks of a shard, with retries while the storage fails."""

from __future__ import annotations

import dataclasses
import random
import time
from collections.abc import Callable, Container, Iterator

from pipeline.sources.folder import folder_samples
from pipeline.sources.parquet import parquet_samples
from pipeline.sources.samples import Chunk, ReadOptions, Sample, Shard, image_ref
from pipeline.sources.storage import ShardError, describe, is_transient
from pipeline.sources.tar_samples import tar_samples
from sspsam.errors import ConfigError

#: Reads the samples of a shard from its start: one item a sample, None for those not wanted.
SampleReader = Callable[[Shard, ReadOptions, Callable[[int], bool]], Iterator[Sample | None]]

_READERS: dict[str, SampleReader] = {"tar": tar_samples, "parquet": parquet_samples, "folder": folder_samples}


def read_chunks(
    shard: Shard,
    chunk_size: int,
    *,
    skip: Container[int] = (),
    options: ReadOptions | None = None,
) -> Iterator[Chunk]:
    """The chunks of a shard, in order, without those whose index is in `skip`.

    The same shard always gives the same chunks; the indices of skipped ones count. At most two
    chunks are held at a time. Faults of the data or the storage become samples with an `error`; a
    shard without samples gives one empty chunk.

    Args:
        chunk_size: samples a chunk.

    Raises:
        ConfigError: `chunk_size` is below 1, or the format is unknown.
    """
    if chunk_size < 1:
        raise ConfigError(f"--chunk-size is {chunk_size}; it must be at least 1")
    if shard.format not in _READERS:
        raise ConfigError(f"--format {shard.format!r} is none of {', '.join(_READERS)}")
    options = options or ReadOptions()
    light = dataclasses.replace(shard, members=())
    pending: Chunk | None = None
    samples: list[Sample] = []
    index = 0
    for position, sample in enumerate(_samples(shard, options, lambda i: i // chunk_size not in skip)):
        if position // chunk_size > index:
            if pending:
                yield pending
            pending = Chunk(light, index, samples, False) if index not in skip else None
            samples, index = [], index + 1
        if sample is not None:
            samples.append(sample)
    if pending:
        yield pending
    if index not in skip:
        yield Chunk(light, index, samples, True)


def _samples(shard: Shard, options: ReadOptions, wanted: Callable[[int], bool]) -> Iterator[Sample | None]:
    """The samples of a shard; after a fault that may pass, the shard is read again from byte 0.

    It is never resumed where it broke: a decoder in an unknown state yields garbage or, worse, ends
    early. Samples that came before the fault are passed over without being handed on again.
    """
    done = failures = 0
    while True:
        start = done

        def still_wanted(index: int, start: int = start) -> bool:
            return index >= start and wanted(index)

        try:
            for position, sample in enumerate(_READERS[shard.format](shard, options, still_wanted)):
                if position >= done:
                    done, failures = position + 1, 0
                    yield sample
            return
        except ShardError as error:
            fault = (error.kind, str(error))
            key = error.key
        except Exception as error:
            if is_transient(error) and failures + 1 < options.attempts:
                failures += 1
                time.sleep(_pause(failures, options))
                continue
            key = None
            tried = f" ({failures + 1} attempts)" if failures else ""
            fault = ("unreadable_shard", f"{describe(error)}{tried}")
        if wanted(done):
            reason = (fault[0], f"{shard.url}: {fault[1]}")
            key = key or f"{shard.name}#{done}"
            yield Sample(key, done, None, None, {}, image_ref(shard.url), reason)
        else:
            yield None
        return


def _pause(failures: int, options: ReadOptions) -> float:
    """Seconds to wait: exponential, with jitter so that a cluster's readers do not come at once."""
    longest = min(options.backoff_seconds * 2 ** (failures - 1), options.backoff_limit_seconds)
    return longest * random.uniform(0.75, 1.25)
