"""What is fuzzed: a function a kind of input, that makes one hostile input and judges what is done with it.

Each takes (rng, folder): the input follows from the generator alone. An exception is a finding.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

from tests.fuzz.fuzz_checkpoints import checkpoint, pickled
from tests.fuzz.fuzz_datasets import (
    dataset_curate,
    dataset_export,
    dataset_report,
    dataset_stats,
    dataset_train,
    dataset_view,
)
from tests.fuzz.fuzz_shards import captions, image, parquet, tar
from tests.fuzz.fuzz_truth import benchmark, coco, rle
from tests.fuzz.fuzz_typed import predicate, search

Target = Callable[[random.Random, Path], None]

#: What is fuzzed, by name.
TARGETS: dict[str, Target] = {
    one.__name__: one
    for one in (
        *(tar, parquet, captions, image, checkpoint, pickled, benchmark, coco, rle, predicate, search),
        *(dataset_stats, dataset_report, dataset_curate, dataset_export, dataset_train, dataset_view),
    )
}
