"""An annotation dataset of any size: the rows of a small one again and again, under new keys.

python -m benchmarks.repeated TARGET --rows 200000 [--source OUTPUT]
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.dataset.opening import open_dataset
from sspsam.schema import ANNOTATION_SCHEMA

_CHUNK = 256  # rows a file
_SHARD = 40 * _CHUNK  # rows a shard


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rows", type=int, default=200_000, help="%(default)s")
    parser.add_argument(
        "--source", help="annotation dataset to repeat, say demo/output (default: 256 drawn pictures)"
    )


def make_large(target: Path, arguments: argparse.Namespace) -> None:
    """Write the dataset that the options ask for, by a process of its own: its memory is not ours."""
    started = time.monotonic()
    source = ["--source", arguments.source] if arguments.source else []
    command = [sys.executable, "-m", "benchmarks.repeated", str(target), "--rows", str(arguments.rows)]
    subprocess.run([*command, *source], check=True)
    print(
        f"made {arguments.rows:,} rows of {arguments.source or 'drawn pictures'}"
        f" in {time.monotonic() - started:.0f} s"
    )


def repeat_rows(source: str, target: Path, rows: int) -> None:
    """Write `rows` rows under `target`: those of `source` in turn, with keys and hashes of their own."""
    dataset = open_dataset(source)
    tables = [table for file in dataset.files for table in dataset.read_batches(file)]
    table = pa.concat_tables(tables).select(ANNOTATION_SCHEMA.names)
    rng = np.random.default_rng(0)
    for start in range(0, rows, _CHUNK):
        number = min(_CHUNK, rows - start)
        part = table.take(pa.array((np.arange(number) + start) % table.num_rows))
        shard = f"shard-{start // _SHARD:05d}"
        new = {
            "key": [f"{start + row:09d}" for row in range(number)],
            "shard": [shard] * number,
            "index": [start % _SHARD + row for row in range(number)],
            "phash": _hashes(rng, number),
        }
        for name, values in new.items():
            kind = ANNOTATION_SCHEMA.field(name)
            part = part.set_column(part.schema.get_field_index(name), kind, pa.array(values, kind.type))
        path = target / "annotations" / shard / f"{start // _CHUNK:05d}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(part.cast(ANNOTATION_SCHEMA), path, compression="zstd")


def _hashes(rng: np.random.Generator, number: int) -> list[int]:
    """Perceptual hashes, of which one in ten differs from the one before it in two of 64 bits."""
    hashes = rng.integers(-(2**63), 2**63 - 1, number)
    close = np.flatnonzero(rng.random(number) < 0.1)
    close = close[close > 0]
    hashes[close] = hashes[close - 1] ^ 0b101
    return [int(one) for one in hashes]


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.repeated", description=__doc__)
    parser.add_argument("target", type=Path)
    add_options(parser)
    arguments = parser.parse_args()
    if arguments.source:
        repeat_rows(arguments.source, arguments.target, arguments.rows)
        return
    from tests.pipeline.annotation_fixture import make_dataset

    with tempfile.TemporaryDirectory() as folder:
        drawn = make_dataset(Path(folder), images=256, shards=1)
        repeat_rows(str(drawn.output), arguments.target, arguments.rows)


if __name__ == "__main__":
    main()
