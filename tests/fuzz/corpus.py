"""The good inputs that the fuzzers start from, each made once a process."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

from tests.pipeline.annotation_fixture import MadeDataset, make_dataset
from tests.sspsam.data.benchmarks import MadeBenchmarks, make_benchmarks

MAX_PIXELS = 4_000_000


@cache
def root() -> Path:
    return Path(tempfile.mkdtemp(prefix="fuzz-corpus-"))


@cache
def benchmarks() -> MadeBenchmarks:
    return make_benchmarks(root() / "benchmarks")


@cache
def made() -> MadeDataset:
    """An annotation dataset, its input and its ground truth."""
    return make_dataset(root() / "made", images=8, shards=2, chunk=3)
