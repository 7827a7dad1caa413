"""What a job costs its driver, its store and its clock, from a thousand images to a million.

    python -m benchmarks.scale --most 100000        # 10^3, 10^4 and 10^5 images; then shard sizes
    python -m benchmarks.scale --s3                 # requests a chunk and a shard, counted at SeaweedFS
    python -m benchmarks.scale --replicas 40        # replicas that sleep, against the arithmetic

The model costs nothing, so that only the machinery is measured: one replica on a Ray of two CPUs, each
row in a process of its own. Images are 200 bytes that nobody decodes.
"""

from __future__ import annotations

import argparse
import io
import json
import resource
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.phrases import Phrase
from pipeline.sources import Sample
from sspsam.inference.masks import Mask
from sspsam.inference.results import ImageResult

_IMAGE_BYTES = 200
_RLE = {"size": [64, 64], "counts": "0" * 120}
_BOX = (1.0, 2.0, 30.0, 40.0)


class FreeSegmenter:
    """Gives every phrase the same mask at once, or after `seconds` an image."""

    def __init__(self, seconds: float) -> None:
        from pipeline.annotate.replica import TIMED

        self.timings = dict.fromkeys(TIMED, 0.0)
        self._seconds = seconds

    def segment_images(self, images: Sequence[bytes], phrases: Sequence[Sequence[str]]) -> list[ImageResult]:
        time.sleep(self._seconds * len(images))
        return [ImageResult(64, 64, [_mask(text) for text in asked], None, 1) for asked in phrases]


def _mask(phrase: str) -> Mask:
    return Mask(phrase, _RLE, 1200, _BOX, _BOX, True, 900, 0.9, 0.9, 0.9, 0.9, 0.3, False)


@dataclass(frozen=True)
class LoadFree:
    """Makes a FreeSegmenter in a replica."""

    seconds: float = 0.0

    def __call__(self) -> Any:
        return FreeSegmenter(self.seconds)


def whole_caption(samples: list[Sample]) -> list[list[Phrase]]:
    """The caption as the one phrase, without a parser."""
    return [[Phrase(sample.caption or "", None, None)] for sample in samples]


def make_input(folder: Path, images: int, shards: int, kind: str) -> None:
    """`shards` Parquet files or tars of images that are noise, with captions."""
    folder.mkdir(parents=True)
    noise = np.random.default_rng(0).integers(0, 256, _IMAGE_BYTES, np.uint8).tobytes()
    for shard in range(shards):
        numbers = range(images * shard // shards, images * (shard + 1) // shards)
        if kind == "parquet":
            columns = {"image": [noise] * len(numbers), "caption": [f"thing {n}" for n in numbers]}
            pq.write_table(pa.table(columns), folder / f"{shard:05d}.parquet", row_group_size=4096)
            continue
        with tarfile.open(folder / f"{shard:05d}.tar", "w") as archive:
            for number in numbers:
                for ending, data in (("jpg", noise), ("txt", b"thing")):
                    info = tarfile.TarInfo(f"{number:08d}.{ending}")
                    info.size = len(data)
                    archive.addfile(info, io.BytesIO(data))


def run_once(options: argparse.Namespace) -> dict[str, Any]:
    """One job in this process. Returns what it cost."""
    import ray

    import pipeline

    ray.init(address="local", num_cpus=options.cpus, include_dashboard=False, object_store_memory=2**29)
    given = {
        **{"input": options.input, "output": options.output, "cpus_per_replica": options.cpus_per_replica},
        **{"model": "random:tiny", "chunk_size": options.chunk_size, "replicas": str(options.replicas)},
        "storage_options": json.loads(options.storage_options),
    }
    before = resource.getrusage(resource.RUSAGE_SELF)
    started = time.monotonic()
    summary = pipeline.annotate(
        pipeline.AnnotateConfig.from_options(given),
        phrase_source=whole_caption,
        segmenter_factory=LoadFree(options.seconds_per_image),
    )
    seconds = time.monotonic() - started
    after = resource.getrusage(resource.RUSAGE_SELF)
    if summary.exit_code:
        summary.print()
        raise SystemExit("the job failed")
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "images": summary.samples,
        "shards": summary.shards,
        "images_per_second": summary.images_per_second,
        "seconds": seconds,
        "start_seconds": summary.start_seconds,
        "driver_cpu_seconds": cpu,
        "driver_mib": after.ru_maxrss / 1024,
    }


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--input")
    parser.add_argument("--output")
    parser.add_argument("--chunk-size", default="64")
    parser.add_argument("--cpus", type=int, default=2)
    parser.add_argument("--cpus-per-replica", type=float, default=1.0)
    parser.add_argument("--replicas", type=int, default=1)
    parser.add_argument("--seconds-per-image", type=float, default=0.0)
    parser.add_argument("--storage-options", default="{}")
    options = parser.parse_args(argv)
    print(json.dumps(run_once(options)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
