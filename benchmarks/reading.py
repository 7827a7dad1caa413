"""How fast shards are read, against the barest loop over the same bytes.

    python -m benchmarks.reading [--images 2000] [--kilobytes 60] [--repeats 5]

Bare loops: `tarfile` over a tar and its members' bytes, `pyarrow` over a Parquet file's columns.
They check nothing, group nothing, and end in silence where the file is cut. Both sides read from the
page cache, in turns, and the median of the ratios is printed: above 1 the tolerant reader is faster.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.phrases import noun_phrases
from pipeline.sources import ReadOptions, list_shards, read_chunks

CHUNK = 64
CAPTION = "a red car to the left of a tree, two dogs and a man with a small banana, number {}"


def write_shards(folder: Path, images: int, size: int) -> None:
    """The same images and captions as tar, tar.gz and Parquet."""
    rng = np.random.default_rng(0)
    data = [rng.bytes(size) for _ in range(images)]
    captions = [CAPTION.format(i) for i in range(images)]
    for name in ("shard.tar", "packed.tar.gz"):
        options = {"mode": "w:gz", "compresslevel": 1} if name.endswith(".gz") else {"mode": "w"}
        with tarfile.open(folder / name, **options) as tar:
            for i, (image, caption) in enumerate(zip(data, captions, strict=True)):
                fields = json.dumps({"caption": caption, "key": f"{i:08d}", "width": 640})
                for suffix, content in ((".jpg", image), (".txt", caption), (".json", fields)):
                    raw = content if isinstance(content, bytes) else content.encode()
                    info = tarfile.TarInfo(f"{i:08d}{suffix}")
                    info.size = len(raw)
                    tar.addfile(info, io.BytesIO(raw))
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    rows = [{"bytes": image, "path": None} for image in data]
    table = pa.table({"image": pa.array(rows, kind), "caption": captions})
    pq.write_table(table, folder / "table.parquet", row_group_size=500, compression="none")


def bare_tar(path: Path) -> int:
    count = 0
    with tarfile.open(path) as tar:
        for member in tar:
            file = tar.extractfile(member)
            count += len(file.read()) if file else 0
    return count


def bare_parquet(path: Path) -> int:
    count = 0
    for batch in pq.ParquetFile(path).iter_batches(CHUNK, use_threads=False):
        images = batch.column("image").field("bytes").to_pylist()
        batch.column("caption").to_pylist()
        count += sum(map(len, images))
    return count


def ours(path: Path) -> int:
    (shard,) = list_shards(str(path))
    count = 0
    for chunk in read_chunks(shard, CHUNK, options=ReadOptions()):
        for sample in chunk.samples:
            assert sample.error is None, sample.error
            count += len(sample.image or b"")
    return count


def seconds(function: Callable[[Path], int], path: Path) -> float:
    started = time.perf_counter()
    function(path)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=2000, help="images a shard")
    parser.add_argument("--kilobytes", type=int, default=60, help="size of an image")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write_shards(Path(folder), args.images, args.kilobytes * 1000)
        print(f"{args.images} images of {args.kilobytes} kB, chunks of {CHUNK}")
        for name, bare in (
            ("shard.tar", bare_tar),
            ("packed.tar.gz", bare_tar),
            ("table.parquet", bare_parquet),
        ):
            path = Path(folder) / name
            seconds(bare, path), seconds(ours, path)  # fill the page cache, import what is lazy
            pairs = [(seconds(bare, path), seconds(ours, path)) for _ in range(args.repeats)]
            ratio = statistics.median(theirs / our for theirs, our in pairs)
            rate = args.images / statistics.median(our for _, our in pairs)
            print(f"{name:16} {rate:8.0f} images/s, {ratio:.2f} times the bare loop")
    captions = [CAPTION.format(i) for i in range(args.images)]
    noun_phrases(captions[:1])
    started = time.perf_counter()
    noun_phrases(captions)
    print(f"{'noun_phrases':16} {args.images / (time.perf_counter() - started):8.0f} captions/s")


if __name__ == "__main__":
    main()
