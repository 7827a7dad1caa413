"""Seals a dataset that an earlier version wrote: a file a shard in place of one a chunk."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from pipeline.annotate import manifest as manifests
from pipeline.annotate.manifest import Manifest
from pipeline.annotate.receipts import survey
from pipeline.annotate.seal import seal_many
from pipeline.dataset.store import Store
from sspsam.errors import ConfigError

_TOGETHER = 4


@dataclass(frozen=True)
class Compacted:
    """Shards that were sealed now, that were sealed before, that have not ended; and what went wrong."""

    sealed: int
    before: int
    unfinished: int
    problems: tuple[str, ...]


def compact(
    output: str, storage_options: Mapping[str, Any] | None = None, say: Callable[[str], None] = print
) -> Compacted:
    """Seal every shard of the dataset at `output` that has ended. May be ended and repeated at any time.

    While a shard is moved its rows are out of readers' sight for a moment; none is there twice.

    Raises:
        ConfigError: `annotate` did not write the dataset.
    """
    store = Store(output, storage_options or {})
    data = store.get(manifests.NAME)
    if data is None:
        raise ConfigError(f"{output}: no {manifests.NAME}, so `sspsam annotate` did not write it")
    names = [shard["name"] for shard in Manifest.from_json(data, store.path(manifests.NAME)).inputs]
    found = survey(store, names)
    todo = [(name, receipt.chunks) for name, receipt in found.ended.items() if receipt.files is None]
    # Sealing that was ended in between leaves a shard whose chunks are all there.
    complete = {n: b.chunks for n, b in found.begun.items() if b.chunks and b.done >= set(range(b.chunks))}
    todo += complete.items()
    problems = []
    with ThreadPoolExecutor(_TOGETHER) as pool:
        for number, result in enumerate(pool.map(lambda one: seal_many(store, [one])[0], todo), 1):
            if isinstance(result, str):
                problems.append(result)
            if number % 1000 == 0:
                say(f"{number:,} of {len(todo):,} shards")
    store.prune("_chunks")
    ended = len(found.ended) + len(complete)
    sealed = len(todo) - len(problems)
    return Compacted(sealed, ended - len(todo), len(names) - ended, tuple(problems))
