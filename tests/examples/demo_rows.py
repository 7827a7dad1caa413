"""The demo's rows as they were when the bundled model was last changed: `demo_rows.parquet`.

Made anew, after a change that is meant to change rows, from the demo's own output:

    make demo && .venv/bin/python -m tests.examples.demo_rows demo/output
"""

from __future__ import annotations

import os
import sys
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from sspsam import decode_rle
from sspsam.schema import ANNOTATION_SCHEMA

REFERENCE = Path(__file__).with_name("demo_rows.parquet")
#: Kernels of other processors, and sums over another number of threads, round otherwise, so the
#: reference says on what it was made.
PROCESSOR = b"processor"


def processor() -> str:
    """For example `AVX512 x 2`."""
    return f"{torch.backends.cpu.get_cpu_capability()} x {os.cpu_count()}"


def demo_rows(output: Path) -> list[dict[str, Any]]:
    """Every row by shard and index; of an image's place only the file name, which every machine shares."""
    files = sorted((output / "annotations").rglob("*.parquet"))
    rows = [row for file in files for row in pq.read_table(file).to_pylist()]
    for row in rows:
        row["image_ref"]["url"] = PurePosixPath(row["image_ref"]["url"]).name
    return sorted(rows, key=lambda row: (row["shard"], row["index"]))


def assert_equal_to_reference(output: Path) -> None:
    """Value for value on the reference's kind of processor; elsewhere masks by IoU, floats nearly."""
    table = pq.read_table(REFERENCE)
    expected, found = table.to_pylist(), demo_rows(output)
    if table.schema.metadata[PROCESSOR].decode() == processor():
        for new, old in zip(found, expected, strict=True):
            assert new == old, f"row {old['key']}"
        return
    for new, old in zip(found, expected, strict=True):
        masks_new, masks_old = new.pop("annotations"), old.pop("annotations")
        assert new == old
        for mask_new, mask_old in zip(masks_new, masks_old, strict=True):
            for name in ("phrase", "start", "end", "has_target", "truncated"):
                assert mask_new[name] == mask_old[name], (old["key"], mask_old["phrase"], name)
            scores = [np.nan if mask["score"] is None else mask["score"] for mask in (mask_new, mask_old)]
            assert np.isclose(*scores, atol=1e-3, equal_nan=True)
            drawn_new, drawn_old = (decode_rle(mask["segmentation"]) for mask in (mask_new, mask_old))
            union = (drawn_new | drawn_old).sum()
            assert not union or (drawn_new & drawn_old).sum() / union >= 0.99


if __name__ == "__main__":
    metadata = {PROCESSOR: processor().encode()}
    rows = pa.Table.from_pylist(demo_rows(Path(sys.argv[1])), schema=ANNOTATION_SCHEMA)
    pq.write_table(rows.replace_schema_metadata(metadata), REFERENCE, compression="zstd")
