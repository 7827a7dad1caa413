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
import re
import resource
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

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
        if self._seconds:  # even to sleep for no time gives the core away
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


def run_apart(source: Path, output: str, **options: Any) -> dict[str, Any]:
    """`run_once` in a process of its own, twice: the second time finds everything done."""
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    command = [sys.executable, "-m", "benchmarks.scale", f"--input={source}", f"--output={output}", *flags]
    found = []
    for _ in range(2):
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(done.stdout[-2000:] + done.stderr[-4000:])
        found.append(json.loads(done.stdout.splitlines()[-1]))
    return found[0] | {"again_seconds": found[1]["seconds"]}


COLUMNS = ("images", "shards", "images/s", "s", "driver CPU s", "ms a chunk", "MiB", "again s", "files")


def table_of_sizes(most: int, chunk_size: int) -> None:
    """Sizes, then shard sizes; the last lines compare both ends: the driver, and the cost of a row."""
    table = Table(*COLUMNS, title=f"a model that costs nothing, chunks of {chunk_size}")
    sizes = [(10**n, max(4, 10**n // 10_000), "parquet") for n in range(3, 7) if 10**n <= most]
    costs: dict[tuple[int, int], float] = {}
    drivers: dict[tuple[int, int], tuple[int, float, float]] = {}  # chunks, CPU seconds, MiB
    with tempfile.TemporaryDirectory() as folder:
        for images, shards, kind in [*sizes, (30_000, 12, "tar"), (30_000, 3_000, "tar")]:
            source, output = Path(folder) / f"{kind}-{images}-{shards}", Path(folder) / "out"
            make_input(source, images, shards, kind)
            row = run_apart(source, str(output), chunk_size=chunk_size)
            files = sum(path.is_file() for path in output.rglob("*"))
            chunks = sum(-(-(images // shards) // chunk_size) for _ in range(shards))
            costs[images, shards] = (row["seconds"] - row["start_seconds"]) / images
            drivers[images, shards] = (chunks, row["driver_cpu_seconds"], row["driver_mib"])
            table.add_row(
                *(f"{images:,}", f"{shards:,}", f"{row['images_per_second']:,.0f}", f"{row['seconds']:.1f}"),
                *(f"{row['driver_cpu_seconds']:.1f}", f"{1000 * row['driver_cpu_seconds'] / chunks:.1f}"),
                *(f"{row['driver_mib']:.0f}", f"{row['again_seconds']:.1f}", f"{files:,}"),
            )
            shutil.rmtree(source)
            shutil.rmtree(output)
    Console().print(table)
    small, large = costs[30_000, 12], costs[30_000, 3_000]
    print(f"30,000 images in 3,000 tars over the same in 12: {large / small:.2f}")
    ends = [(n, s) for n, s, _ in sizes if n >= 10_000]
    if len(ends) > 1:
        first, last = ends[0], ends[-1]
        chunks, seconds, mib = (b - a for a, b in zip(drivers[first], drivers[last], strict=True))
        print(f"driver: {1000 * seconds / chunks:.2f} ms of CPU a chunk beyond the first, {mib:.0f} MiB more")
        sizes_of = " / ".join(f"10^{len(str(images)) - 1}" for images, _ in (last, first))
        print(f"cost per row {sizes_of}: {costs[last] / costs[first]:.2f}")


def requests_table(chunk_size: int) -> None:
    """Requests to S3 by method, counted by the server, of two runs that differ in one thing."""
    from tests.processes import free_port
    from tests.s3_server import S3Server

    runs = {"4 of 1,600": (6_400, 4), "8 of 1,600": (12_800, 8), "4 of 3,200": (12_800, 4)}
    counted = {}
    with tempfile.TemporaryDirectory() as folder:
        metrics = free_port()
        server = S3Server(Path(folder), "bucket", arguments=(f"-metricsPort={metrics}",))
        server.start()
        try:
            for name, (images, shards) in runs.items():
                source = Path(folder) / f"in-{images}-{shards}"
                make_input(source, images, shards, "parquet")
                before = _requests(metrics)
                options = {"chunk_size": chunk_size, "storage_options": json.dumps(server.options)}
                run_apart(source, f"s3://bucket/{images}-{shards}", **options)
                counted[name] = _requests(metrics) - before
        finally:
            server.kill()
    table = Table("", *runs, "a shard, with its 25 chunks", "a chunk", title="requests to S3, two runs each")
    for method in sorted(set().union(*counted.values())):
        base, shards_more, chunks_more = (found[method] for found in counted.values())
        shard, chunk = (shards_more - base) / 4, (chunks_more - base) / 100
        table.add_row(method, f"{base}", f"{shards_more}", f"{chunks_more}", f"{shard:.1f}", f"{chunk:.2f}")
    Console().print(table)


def _requests(port: int) -> Counter[str]:
    """What SeaweedFS counted so far, by its name of the request."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    found: Counter[str] = Counter()
    for labels, number in re.findall(r"^SeaweedFS_s3_request_total\{(.*)\} (\S+)$", text, re.MULTILINE):
        method = re.search(r'type="([^"]*)"', labels)
        found[method[1] if method else "?"] += int(float(number))
    return found


def many_replicas(replicas: int, chunk_size: int) -> None:
    """Replicas that sleep, 50 ms an image: images a second against replicas x 20."""
    images = replicas * 20 * 60
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "in"
        make_input(source, images, max(4, images // 10_000), "parquet")
        options = {"replicas": replicas, "cpus": replicas + 2, "seconds_per_image": 0.05}
        row = run_apart(source, f"{folder}/out", chunk_size=chunk_size, **options)
    rate, cpu = row["images_per_second"], row["driver_cpu_seconds"]
    print(f"{replicas} replicas of 20 images/s: {rate:,.0f} images/s, ratio {rate / replicas / 20:.3f}")
    print(f"driver: {cpu:.1f} s of CPU in {row['seconds']:.0f} s, {row['driver_mib']:.0f} MiB")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--most", type=int, default=100_000, help="images of the largest run")
    parser.add_argument("--s3", action="store_true", help="count requests instead")
    parser.add_argument("--replicas", type=int, default=1, help="more than one: replicas that sleep")
    parser.add_argument("--chunk-size", type=int, default=64)
    parser.add_argument("--input", help="one run in this process; printed as JSON")
    parser.add_argument("--output")
    parser.add_argument("--cpus", type=int, default=2)
    parser.add_argument("--cpus-per-replica", type=float, default=1.0)
    parser.add_argument("--seconds-per-image", type=float, default=0.0)
    parser.add_argument("--storage-options", default="{}")
    options = parser.parse_args(argv)
    if options.input:
        print(json.dumps(run_once(options)))
    elif options.s3:
        requests_table(options.chunk_size)
    elif options.replicas > 1:
        many_replicas(options.replicas, options.chunk_size)
    else:
        table_of_sizes(options.most, options.chunk_size)
    return 0


if __name__ == "__main__":
    sys.exit(main())
