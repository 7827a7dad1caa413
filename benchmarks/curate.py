"""Curation of 200,000 rows: seconds and memory, against a bare rewrite of the same files.

    python -m benchmarks.curate [--rows 200000] [--source OUTPUT]

The rows are those of a small real dataset, repeated under new keys with moved perceptual hashes. Each of
the two runs is a process of its own, so that its peak memory is its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.dataset import open_dataset
from sspsam.schema import ANNOTATION_SCHEMA

_CHUNK = 256

#: Reads a stage of the process's life and prints its seconds and peak memory as JSON.
_MEASURED = """
import json, resource, sys, time
import pipeline.curate.run
base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
started = time.monotonic()
{work}
seconds = time.monotonic() - started
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({{"seconds": seconds, "imports_mb": base / 1024, "peak_mb": peak / 1024}}))
"""

_BARE = """
from pathlib import Path
import pyarrow.parquet as pq
for path in sorted(Path({source!r}).glob("annotations/*/*.parquet")):
    target = Path({dest!r}) / path.parent.name / path.name
    target.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pq.read_table(path), target, compression="zstd")
"""

_CURATE = """
from pipeline.curate import CurateConfig, CurateResources, curate
curate({source!r}, {dest!r}, CurateConfig(
    where=("score > 0.45 and area > 20",), merge_iou=0.9, phash_distance=3, max_per_phrase={cap}),
    CurateResources(workers=1, memory_mb=512))
"""


def repeat_rows(source: str, target: Path, rows: int) -> None:
    """Write `rows` rows under `target`: the `ok` rows of `source` again and again, keys and hashes new."""
    dataset = open_dataset(source)
    tables = [table for file in dataset.files for table in dataset.read_batches(file)]
    table = pa.concat_tables(tables).select(ANNOTATION_SCHEMA.names)
    rng = np.random.default_rng(0)
    for start in range(0, rows, _CHUNK):
        number = min(_CHUNK, rows - start)
        part = table.take(pa.array((np.arange(number) + start) % table.num_rows))
        shard = f"shard-{start // (_CHUNK * 40):05d}"
        new = {
            "key": [f"{start + row:09d}" for row in range(number)],
            "shard": [shard] * number,
            "index": [start % (_CHUNK * 40) + row for row in range(number)],
            # One image in ten is close to the one before it: two bits of 64 differ.
            "phash": _hashes(rng, number),
        }
        for name, values in new.items():
            kind = ANNOTATION_SCHEMA.field(name)
            part = part.set_column(part.schema.get_field_index(name), kind, pa.array(values, kind.type))
        path = target / "annotations" / shard / f"{start // _CHUNK:05d}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(part.cast(ANNOTATION_SCHEMA), path, compression="zstd")


def _hashes(rng: np.random.Generator, number: int) -> list[int]:
    hashes = rng.integers(-(2**63), 2**63 - 1, number)
    close = np.flatnonzero(rng.random(number) < 0.1)
    close = close[close > 0]
    hashes[close] = hashes[close - 1] ^ 0b101
    return [int(one) for one in hashes]


def measure(work: str) -> dict[str, float]:
    """Run `work` in a process of its own: seconds, peak memory, memory after the imports."""
    command = [sys.executable, "-c", _MEASURED.format(work=work)]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    return dict(json.loads(result.stdout.splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.curate")
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--source", help="annotation dataset to repeat (default: drawn shapes)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        source = arguments.source
        if source is None:
            from tests.pipeline.annotation_fixture import make_dataset

            source = str(make_dataset(Path(folder) / "small", images=256, shards=1).output)
        started = time.monotonic()
        repeat_rows(source, Path(folder) / "large", arguments.rows)
        print(f"made {arguments.rows:,} rows in {time.monotonic() - started:.0f} s")
        large = str(Path(folder) / "large")
        bare = measure(_BARE.format(source=large, dest=f"{folder}/bare"))
        curated = measure(_CURATE.format(source=large, dest=f"{folder}/dest", cap=arguments.rows // 100))
        manifest = json.loads((Path(folder) / "dest/_curation.json").read_text())
    print(f"bare rewrite {bare['seconds']:.1f} s, peak {bare['peak_mb']:.0f} MiB")
    print(
        f"curate       {curated['seconds']:.1f} s, peak {curated['peak_mb']:.0f} MiB"
        f" (imports {curated['imports_mb']:.0f} MiB): {curated['seconds'] / bare['seconds']:.1f} times bare,"
        f" {arguments.rows / curated['seconds']:,.0f} rows/s"
    )
    for step in manifest["funnel"]:
        print(f"  {step['stage']:<28} {step['images']:>9,} images {step['phrases']:>10,} phrases")


if __name__ == "__main__":
    main()
