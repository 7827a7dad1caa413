"""Images a second of the annotate job over those of a bare loop, same Segmenter, images and threads.

    python -m benchmarks.pipeline --images 640

One run, one replica. The loop is what somebody would write without Ray: read a chunk, ask for phrases,
segment, go on. The job's steady state is counted by wall time from its first written chunk to its last;
start-up is printed apart. Expect a ratio of at least 0.95.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console
from rich.table import Table

NOUNS = ("red block", "blue block", "green square", "yellow square")


@dataclass(frozen=True)
class Result:
    """Images a second of both, and the job's seconds before its first chunk and in all."""

    loop: float
    job: float
    start_seconds: float
    job_seconds: float
    verdict: str

    @property
    def ratio(self) -> float:
        return self.job / self.loop


def make_shards(folder: Path, images: int, shards: int, side: int) -> None:
    """Tars of JPEGs of coloured blocks with captions that name two things."""
    import io
    import tarfile

    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    for shard in range(shards):
        with tarfile.open(folder / f"{shard:05d}.tar", "w") as archive:
            for number in range(shard, images, shards):
                blocks = random.integers(0, 255, (8, 8, 3), dtype=np.uint8)
                sink = io.BytesIO()
                Image.fromarray(np.kron(blocks, np.ones((side // 8, side // 8, 1), np.uint8))).save(
                    sink, "JPEG"
                )
                caption = f"a {NOUNS[number % 4]} beside a {NOUNS[(number + 1) % 4]}"
                for name, data in (
                    (f"{number:07d}.jpg", sink.getvalue()),
                    (f"{number:07d}.txt", caption.encode()),
                ):
                    info = tarfile.TarInfo(name)
                    info.size = len(data)
                    archive.addfile(info, io.BytesIO(data))


def bare_loop(source: Path, model: str, device: str | None, threads: int, chunk_size: int) -> float:
    """Images a second of reading, phrases and segmenting in one process, from the second chunk on."""
    from pipeline.annotate.annotator import LoadSegmenter
    from pipeline.phrases import phrase_source
    from pipeline.sources import ReadOptions, list_shards, read_chunks

    segmenter = LoadSegmenter(model, device, threads=threads)()
    ask = phrase_source("caption")
    started, images = 0.0, 0
    for shard in list_shards(str(source)):
        for chunk in read_chunks(shard, chunk_size, options=ReadOptions()):
            phrases = [[phrase.text for phrase in asked] for asked in ask(chunk.samples)]
            segmenter.segment_images([sample.image or b"" for sample in chunk.samples], phrases)
            if started:
                images += len(chunk.samples)
            else:
                started = time.perf_counter()  # the first chunk warms up caches and the parser
    return images / (time.perf_counter() - started)


def run_job(
    source: Path,
    output: Path,
    model: str,
    device: str | None,
    threads: int,
    chunk_size: int,
    loop: float,
) -> Result:
    """The same through `annotate` on a local Ray with one replica."""
    import pipeline

    given = {
        **{"input": str(source), "output": str(output), "model": model, "replicas": "1"},
        **{"chunk_size": chunk_size, "cpus_per_replica": threads, "device": device},
    }
    summary = pipeline.annotate(pipeline.AnnotateConfig.from_options(given))
    if summary.exit_code:
        summary.print()
        raise SystemExit("the job failed")
    return Result(loop, summary.images_per_second, summary.start_seconds, summary.seconds, summary.verdict)


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; with --json, one line of JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pipeline", description=__doc__)
    parser.add_argument("--model", default=None, help="default: the bundled one, else random:tiny")
    parser.add_argument("--device", default=None)
    parser.add_argument("--images", type=int, default=640)
    parser.add_argument("--side", type=int, default=512, help="pixels of the images' sides")
    parser.add_argument("--chunk-size", type=int, default=64)
    parser.add_argument("--threads", type=int, default=max(1, (os.cpu_count() or 2) - 1))
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args(argv)
    from sspsam.checkpoint import default_model

    model = given.model or default_model()
    same = (model, given.device, given.threads, given.chunk_size)
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "in"
        make_shards(source, given.images, shards=2, side=given.side)
        loop = bare_loop(source, *same)
        result = run_job(source, Path(folder) / "out", *same, loop)
    if given.json:
        print(json.dumps(vars(result) | {"ratio": result.ratio}))
        return 0
    table = Table(title=f"{model}, {given.images} images, chunks of {given.chunk_size}")
    table.add_column("what")
    table.add_column("value", justify="right")
    table.add_row("bare loop", f"{result.loop:.2f} images/s")
    table.add_row("annotate, steady state", f"{result.job:.2f} images/s")
    table.add_row("ratio", f"{result.ratio:.3f}")
    table.add_row("start-up (Ray, replica, model)", f"{result.start_seconds:.1f} s")
    table.add_row("whole run", f"{result.job_seconds:.1f} s")
    Console().print(table, result.verdict)
    return 0


if __name__ == "__main__":
    sys.exit(main())
