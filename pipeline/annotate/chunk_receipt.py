"""The receipt of a chunk: which file holds its rows, and how many of each kind they are."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

CHUNKS = "_chunks"


def chunk_name(shard: str, chunk: int) -> str:
    """Where a chunk's rows wait for the shard's end, relative to OUTPUT: a function of the input alone."""
    return f"{CHUNKS}/{shard}/{chunk:05d}.parquet"


@dataclass(frozen=True)
class Receipt:
    """What became of one chunk; also stands in its file's metadata as `sspsam.chunk`.

    `notes`: measurements (seconds by stage, bytes), for the summary only.
    """

    shard: str
    chunk: int
    last: bool
    samples: int
    ok: int
    no_phrase: int
    error: int
    phrases: int
    masks: int
    kinds: dict[str, int]
    notes: dict[str, Any] = field(default_factory=dict, compare=False)
    language: int = 0  # of no_phrase: those whose caption is in a language that is not read

    def to_json(self, notes: bool = True) -> str:
        values = dict(vars(self))
        if not notes:
            del values["notes"]
        return json.dumps(values, sort_keys=True)

    @classmethod
    def from_json(cls, text: str | bytes) -> Receipt:
        return cls(**json.loads(text))
