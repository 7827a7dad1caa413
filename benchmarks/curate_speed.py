"""Curation of 200,000 rows: seconds and memory, against a bare rewrite of the same files.

    python -m benchmarks.curate_speed [--rows 200000] [--source OUTPUT]

The rows are those of a small dataset, repeated under new keys (`benchmarks/repeated.py`). Each of the two
runs is a process of its own, so that its peak memory is its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.repeated import add_options, make_large

#: Reads a stage of the process's life and prints its seconds and peak memory as JSON.
_MEASURED = """
import json, resource, sys, time
import pipeline.curate.curate_run
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


def measure(work: str) -> dict[str, float]:
    """Run `work` in a process of its own: seconds, peak memory, memory after the imports."""
    command = [sys.executable, "-c", _MEASURED.format(work=work)]
    result = subprocess.run(command, check=True, capture_output=True, text=True)
    return dict(json.loads(result.stdout.splitlines()[-1]))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.curate_speed")
    add_options(parser)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        large = f"{folder}/large"
        make_large(Path(large), arguments)
        bare = measure(_BARE.format(source=large, dest=f"{folder}/bare"))
        curated = measure(_CURATE.format(source=large, dest=f"{folder}/dest", cap=arguments.rows // 100))
        manifest = json.loads((Path(folder) / "dest/_curation.json").read_text())
    print(f"bare rewrite {bare['seconds']:.1f} s, peak {bare['peak_mb']:.0f} MiB")
    print(
        f"curate       {curated['seconds']:.1f} s, peak {curated['peak_mb']:.0f} MiB"
        f" (imports {curated['imports_mb']:.0f} MiB): ratio {curated['seconds'] / bare['seconds']:.1f},"
        f" {arguments.rows / curated['seconds']:,.0f} rows/s"
    )
    for step in manifest["funnel"]:
        print(f"  {step['stage']:<28} {step['images']:>9,} images {step['phrases']:>10,} phrases")


if __name__ == "__main__":
    main()
