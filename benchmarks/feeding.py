"""How well a replica keeps its device busy: images a second over the rate of a simulated device.

    python -m benchmarks.feeding                                    # minutes: all sizes, all chunks
    python -m benchmarks.feeding --sizes 1280x853 --chunks 64       # the line that counts
    python -m benchmarks.feeding --sizes 1280x853 --drawn           # as near to CUDA as a CPU comes

The device is simulated: its image towers sleep, with the GIL released, for as long as a batch takes at the
given rate; resizing, normalising, prompts and mask decoder, which are the device's work too, give made-up
results of the published shapes at once. All else is real: reading, captions, decoding, copies, drawing and
scanning masks for runs (the device's work as well, done here by the CPU), RLE, rows, files. With `--drawn`
what is drawn is made up as well, and the host encodes what CUDA would hand it. The rate is half of what a
bare Segmenter does in front of a device that takes no time: the CPU has twice the time that it needs. The
job is timed from its first written chunk to its last.
"""

from __future__ import annotations

import argparse
import functools
import io
import os
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.measuring import PHRASES, jpeg, made_up_logits
from benchmarks.simulated_device import LoadSimulated
from sspsam import SSPSAMConfig
from sspsam.images.decoding import MAX_PIXELS, decode_reduced, difference_hash
from sspsam.images.geometry import Geometry
from sspsam.images.preprocess import to_send
from sspsam.inference.masks import draw_masks, finish_masks
from sspsam.inference.run_starts import run_starts
from sspsam.inference.segmenter import RESIZED_ON_CUDA
from sspsam.inference.square_scores import SquareScores, places, score_squares

SIZES = ("512x384", "1280x853", "2048x1365", "4000x3000")
#: Stages of which CUDA relieves the CPU.
THE_DEVICES = ("draw (the device's)", "scan (the device's)")
_THINGS = ("dog", "bench", "tree", "kite", "boat", "lamp", "child", "horse", "basket", "fence")
_LOOKS = ("red", "small", "old", "wooden", "bright", "blue", "tall", "green", "striped", "white")


def caption(number: int) -> str:
    """A caption of `PHRASES` things, another one for each number."""
    looks = [_LOOKS[number // 10**i % 10] for i in range(PHRASES)]
    things = [_THINGS[(number + 3 * i) % 10] for i in range(PHRASES)]
    names = [f"a {look} {thing}" for look, thing in zip(looks, things, strict=True)]
    return f"{names[0]} beside {names[1]}, {names[2]}, {names[3]} and {names[4]} in number {number}"


def make_shard(path: Path, photo: bytes, images: int) -> None:
    """A tar as img2dataset writes them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for number in range(images):
            for suffix, data in (("jpg", photo), ("txt", caption(number).encode())):
                info = tarfile.TarInfo(f"{number:07d}.{suffix}")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))


def cpu_ms(function: Callable[[], Any], images: int = 1, repeats: int = 5) -> float:
    """CPU milliseconds of this thread an image, the least of some runs: others share the machine."""
    function()
    spent = []
    for _ in range(repeats):
        started = time.thread_time()
        function()
        spent.append((time.thread_time() - started) * 1000 / images)
    return min(spent)


def stages(photo: bytes, folder: Path, decode: str) -> dict[str, float]:
    """CPU ms an image by stage, one thread, in the order in which an image meets them."""
    from pipeline.annotate.chunk_receipt import Receipt
    from pipeline.annotate.chunk_writer import encode_chunk
    from pipeline.annotate.rows import annotation_row, count_rows, rows_table
    from pipeline.phrases import phrase_source
    from pipeline.sources import ReadOptions, list_shards, read_chunks

    torch.set_num_threads(1)
    images = 64
    make_shard(folder / "stages" / "0.tar", photo, images)
    (shard,) = list_shards(str(folder / "stages"))
    read = functools.partial(lambda: list(read_chunks(shard, images, options=ReadOptions())))
    (chunk,) = read()
    config = SSPSAMConfig.preset("b16-224")
    ask = phrase_source("caption", PHRASES)
    side = config.sam.image_size if decode == "reduced" else None
    decoded = decode_reduced(photo, MAX_PIXELS, side)
    geometry = Geometry.of(decoded.width, decoded.height, config)
    where = places([geometry], config.score_size, 1, torch.device("cpu"))
    logits, slots = made_up_logits(config.sam.image_size // 4), torch.zeros(PHRASES, dtype=torch.long)
    tokens, sentences = torch.ones(1, 1 + config.clip.grid**2, 8), torch.ones(PHRASES, 8)

    def draw() -> Any:
        scores = SquareScores(*score_squares(config, logits, where, tokens, sentences, slots))
        return draw_masks(scores, slice(PHRASES), geometry, keep_square=False)

    drawn = draw()
    names = [f"phrase {i}" for i in range(PHRASES)]
    told = (names, [False] * PHRASES, torch.ones(PHRASES), torch.ones(PHRASES, 4), 50)
    from_cuda = replace(drawn, masks=run_starts(torch.from_numpy(drawn.masks)))
    rle = cpu_ms(lambda: finish_masks(from_cuda, *told))
    segmenter = LoadSimulated(0)()
    phrases = ask(chunk.samples)
    result = segmenter.segment_images([photo], [[phrase.text for phrase in phrases[0]]])[0]

    def rows() -> Any:
        made = [
            annotation_row(s, "0", p[: len(result.masks)], result, None, False)
            for s, p in zip(chunk.samples, phrases, strict=True)
        ]
        return rows_table(made)

    table = rows()
    receipt = Receipt(shard="0", chunk=0, last=True, notes={}, **count_rows(table))
    return {
        "read": cpu_ms(read, images),
        "phrases of the caption": cpu_ms(lambda: ask(chunk.samples), images, 2),
        "decode": cpu_ms(lambda: decode_reduced(photo, MAX_PIXELS, side)),
        "hash": cpu_ms(lambda: difference_hash(decoded.rgb)),
        "resize, or copy": cpu_ms(lambda: to_send(decoded, config, RESIZED_ON_CUDA)),
        "draw (the device's)": cpu_ms(draw),
        "scan (the device's)": cpu_ms(lambda: finish_masks(drawn, *told)) - rle,
        "RLE": rle,
        "rows": cpu_ms(rows, images),
        "file": cpu_ms(lambda: encode_chunk(table, receipt, "{}"), images),
    }


def bare(photo: bytes, load: LoadSimulated, images: int) -> float:
    """Images a second of a Segmenter alone, from its second batch on."""
    segmenter = load()
    phrases = [[f"thing {i}" for i in range(PHRASES)]] * images
    segmenter.segment_images([photo] * 8, phrases[:8])
    started = time.perf_counter()
    segmenter.segment_images([photo] * images, phrases)
    return images / (time.perf_counter() - started)


def job(source: Path, output: Path, load: LoadSimulated, chunk: int) -> float:
    """Images a second of `annotate` in its steady state, one replica."""
    import pipeline

    given = {
        "input": str(source),
        "output": str(output),
        "chunk_size": chunk,
        "replicas": "1",
        "cpus_per_replica": 1,
        "max_phrases": PHRASES,
    }
    summary = pipeline.annotate(
        pipeline.AnnotateConfig.from_options(given), segmenter_factory=load, say=lambda _: None
    )
    if summary.exit_code or summary.masks < summary.samples:
        summary.print()
        raise SystemExit("the job failed")
    return summary.images_per_second


def main(argv: Sequence[str] | None = None) -> int:
    """Print both tables, and `feeding ratio R` of the last size and chunk that the job ran."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.feeding", description=__doc__)
    parser.add_argument("--sizes", nargs="+", default=[*SIZES[:1], *SIZES[2:], SIZES[1]], metavar="WxH")
    parser.add_argument("--chunks", nargs="+", type=int, default=[16, 128, 64], metavar="N")
    parser.add_argument(
        "--seconds", type=float, default=20.0, help="of the device's time in each measurement"
    )
    parser.add_argument(
        "--rate", type=float, help="images/s of the device (default: half of what the CPU can do)"
    )
    parser.add_argument("--drawn", action="store_true", help="masks are made up too")
    parser.add_argument("--decode", choices=("exact", "reduced"), default="exact")
    given = parser.parse_args(argv)
    cores = len(os.sched_getaffinity(0))
    costs, ratios = (
        Table(title="CPU ms an image, by stage"),
        Table(title=f"images/s over the device's, {cores} cores"),
    )
    for name in (
        "pixels",
        "device images/s",
        "bare Segmenter",
        *(f"job, chunks of {n}" for n in given.chunks),
    ):
        ratios.add_column(name, justify="right")
    ratio = 0.0
    with tempfile.TemporaryDirectory() as name:
        for size in given.sizes:
            photo, folder = jpeg(*map(int, size.split("x"))), Path(name) / size
            spent = stages(photo, folder, given.decode)
            if not costs.columns:
                for column in ("pixels", *spent, "in all, with CUDA"):
                    costs.add_column(column, justify="right")
            rest = sum(spent.values()) - sum(spent[name] for name in THE_DEVICES)
            costs.add_row(size, *(f"{value:.1f}" for value in (*spent.values(), rest)))
            load = LoadSimulated(0, given.decode, given.drawn)
            rate = given.rate or bare(photo, load, 64) / 2
            load = replace(load, images_per_second=rate)
            row = [bare(photo, load, max(48, round(rate * given.seconds))) / rate]
            for chunk in given.chunks:
                # The first chunk, and what is under way with it, is not counted.
                images = (3 + round(rate * given.seconds / chunk)) * chunk
                make_shard(folder / f"in-{chunk}" / "0.tar", photo, images)
                row.append(job(folder / f"in-{chunk}", folder / f"out-{chunk}", load, chunk) / rate)
            ratio = row[-1]
            ratios.add_row(size, f"{rate:.1f}", *(f"{value:.3f}" for value in row))
    Console(width=140).print(costs, ratios)
    print(f"feeding ratio {ratio:.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
