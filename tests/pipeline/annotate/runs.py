"""A run of the annotate job as tests want it: its settings, what it says, its rows and files."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pyarrow.dataset as pads

from pipeline.annotate.annotate_config import AnnotateConfig

say = functools.partial(print, flush=True)


def rows(output: Path) -> list[dict[str, Any]]:
    """The dataset's rows in a fixed order."""
    table = pads.dataset(output / "annotations", format="parquet").to_table()
    return sorted(table.to_pylist(), key=lambda row: (row["shard"], row["index"]))


def files(output: Path) -> dict[str, int]:
    """Each file of annotations with the time it was written."""
    found = (output / "annotations").rglob("*.parquet")
    return {str(path.relative_to(output)): path.stat().st_mtime_ns for path in found}


def configure(source: Path, output: Path, micro_model: Path, **options: Any) -> AnnotateConfig:
    defaults = {"chunk_size": 8, "device": "cpu", "cpus_per_replica": 1, "stall_timeout": 300}
    given = {"input": str(source), "output": str(output), "model": str(micro_model)}
    return AnnotateConfig.from_options(defaults | given | options)
