"""The receipt of a shard: `_shards/<shard>.json` says that all of it is here, and in which files."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from pipeline.annotate.chunk_receipt import Receipt
from pipeline.annotate.shard_files import ShardFiles
from sspsam.errors import DataError

SHARDS = "_shards"
#: What receipts and summaries count.
COUNTS = ("samples", "ok", "no_phrase", "language", "error", "phrases", "masks")


@dataclass(frozen=True)
class ShardReceipt:
    """A shard that has ended: its rows, counted from its files.

    `samples` = `ok` + `no_phrase` + `error`; `language`: those of `no_phrase` whose caption is in a
    language that is not read, 0 in receipts older than this count; `error_chunks`: chunk number (as
    text) to the number of its error rows by kind; `files`: the sealed parts with their sizes in bytes,
    None for a shard that was never sealed; `retry`: chunks that are to be computed again, so that the
    shard has not ended.
    """

    shard: str
    chunks: int
    samples: int
    ok: int
    no_phrase: int
    error: int
    phrases: int
    masks: int
    error_chunks: dict[str, dict[str, int]] = field(default_factory=dict)
    files: dict[str, int] | None = None
    retry: Sequence[int] = ()
    language: int = 0

    @classmethod
    def of(cls, shard: str, receipts: Sequence[Receipt], files: dict[str, int] | None) -> ShardReceipt:
        """The sum of all chunks' receipts."""
        counts = {name: sum(getattr(receipt, name) for receipt in receipts) for name in COUNTS}
        errors = {str(receipt.chunk): receipt.kinds for receipt in receipts if receipt.kinds}
        return cls(shard, len(receipts), error_chunks=errors, files=files, **counts)

    @classmethod
    def from_json(cls, data: bytes, where: str) -> ShardReceipt:
        try:
            return cls(**json.loads(data))
        except (ValueError, TypeError) as error:
            raise DataError(f"{where} is damaged ({error}): delete it, then resume") from error

    def to_json(self) -> bytes:
        return json.dumps(vars(self), sort_keys=True).encode()

    def stands(self, held: ShardFiles) -> bool:
        """Whether the shard's files are the ones that the receipt was written for."""
        if self.retry:
            return False
        if self.files is None:
            return not held.parts and set(held.early) == set(range(self.chunks))
        return held.visible(self.shard) == self.files

    def kinds(self) -> Counter[str]:
        """Error rows by kind."""
        total: Counter[str] = Counter()
        for kinds in self.error_chunks.values():
            total.update(kinds)
        return total

    def chunks_to_retry(self, kind: str) -> frozenset[int]:
        """Chunks with an error row of `kind`, or of any kind if `kind` is `any`."""
        found = self.error_chunks.items()
        return frozenset(int(chunk) for chunk, kinds in found if kind == "any" or kind in kinds)

    def without(self, numbers: Sequence[int]) -> ShardReceipt:
        """The receipt that says that these chunks, too, are to be computed again."""
        return replace(self, retry=sorted({*self.retry, *numbers}))


def receipt_name(shard: str) -> str:
    return f"{SHARDS}/{shard}.json"
