"""What one CUDA card reaches, in one run: its ceiling, the image encoders, JPEG bytes to masks.

    python -m benchmarks.gpu                        # minutes; wants a card with 24 GB or more
    python -m benchmarks.gpu --sam vit_h --seconds 20 --json gpu.json

(a) the measured ceiling: a bfloat16 product of 8192 x 8192 matrices;
(b) the ways of SAM's relative attention on this card, for windows and for the whole image;
(c) SAM's image encoder at several batch sizes, images/s and share of the ceiling: by torch's kernels one
    after the other (the baseline), and compiled as a replica runs it; peak memory;
(d) end to end: a `Segmenter` from JPEG bytes (1280 x 853) to RLE, with 1, 5 and 20 phrases an image, as a
    share of the encoder alone; the share of the time in which the device is at the towers, at the phrases
    and at drawing; how often the host waits for the device a batch;
(e) masks of the bundled model on generated scenes, by each precision, against float32: IoU.

Weights of (c) and (d) are random: they do not change the time. The masks of random weights are noise, which
costs RLE more than any photograph: in (d) the decoder runs, and made-up logits are drawn.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.measuring import PHRASES, jpeg, machine, made_up_logits, measure
from benchmarks.model_speed import multiplications
from sspsam import SSPSAM, Segmenter, SegmenterConfig, SSPSAMConfig
from sspsam.inference import phrase_batches
from sspsam.inference.masks import decode_rle
from sspsam.modeling.compiled_towers import CompiledImageEncoder
from sspsam.modeling.graphed import Graphed
from sspsam.modeling.precision import fast_float32, image_tower_autocast, image_tower_dtype
from sspsam.modeling.relative_attention import offset_table, ways
from sspsam.modeling.sam import SAMImageEncoder

Row = tuple[str, ...]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sam", nargs="+", default=["vit_b", "vit_h"], help="image encoders (%(default)s)")
    parser.add_argument("--preset", default="b16-224", help="layout of the rest (%(default)s)")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4, 8, 16], metavar="B")
    parser.add_argument("--phrases", type=int, nargs="+", default=[1, 5, 20], metavar="K")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each end-to-end run (%(default)s)")
    parser.add_argument("--scenes", type=int, default=64, help="scenes of (e) (%(default)s)")
    parser.add_argument("--sections", default="abcde", help="which to run (%(default)s)")
    parser.add_argument("--json", metavar="FILE", help="also write all numbers here")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        print("benchmarks.gpu: no CUDA device here; benchmarks.model_speed runs on a CPU", file=sys.stderr)
        return 2
    device = torch.device("cuda")
    console = Console(width=110)
    console.print(machine(device))
    ceiling = measured_ceiling(device)
    written: dict[str, Any] = {"machine": machine(device), "ceiling_tflops": ceiling / 1e12}
    console.print(f"(a) bfloat16 product 8192^3: {ceiling / 1e12:.0f} TFLOP/s")

    def show(title: str, head: Sequence[str], rows: list[Row]) -> None:
        table = Table(*head, title=title, title_justify="left")
        for row in rows:
            table.add_row(*row)
        console.print(table)
        written[title] = {"head": list(head), "rows": rows}

    if "b" in arguments.sections:
        show("(b) relative attention, 8 images, ms", ("shape", "way", "ms"), attention(device))
    for name in arguments.sam:
        config = SSPSAMConfig.preset(arguments.preset, sam=name)
        rate = 0.0
        if "c" in arguments.sections:
            rows, rate = encoder_rates(config, device, arguments.batches, ceiling)
            head = ("how", "batch", "images/s", "of the ceiling", "peak GiB", "first batch, s")
            show(f"(c) image encoder {name}", head, rows)
        if "d" in arguments.sections:
            rows = end_to_end(config, device, arguments, rate)
            more = ("host waits a batch", "peak GiB")
            head = ("phrases", "images/s", "of the encoder alone", "towers", "phrases", "drawing", *more)
            show(f"(d) end to end {name}, batches of {max(arguments.batches)}", head, rows)
    if "e" in arguments.sections:
        rows = precision(device, arguments.scenes)
        show("(e) the bundled model's masks against float32", ("how", "mean IoU", "least IoU", "n"), rows)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(written, indent=1))
    return 0


def measured_ceiling(device: torch.device) -> float:
    """FLOP/s of a large bfloat16 product on random data."""
    a, b = (torch.randn(8192, 8192, device=device, dtype=torch.bfloat16) for _ in range(2))
    return 2 * 8192**3 / measure(lambda: a @ b, device, 20)


@torch.inference_mode()
def attention(device: torch.device) -> list[Row]:
    rows: list[Row] = []
    dtype = image_tower_dtype(device)
    for name, heads, depth in (("vit_b", 12, 64), ("vit_h", 16, 80)):
        for what, count, side in (("windows", 8 * 25, 14), ("whole", 8, 64)):
            table = offset_table(*(torch.randn(2 * side - 1, depth) for _ in range(2))).to(device, dtype)
            qkv = torch.randn(count, side * side, 3, heads, depth, device=device, dtype=dtype)
            queries = qkv[:, :, 0].reshape(-1, heads, depth).transpose(0, 1)
            products = torch.bmm(queries, table.expand(heads, -1, -1)).view(heads, count, side * side, -1)
            for way, attend in ways(device, dtype, depth).items():
                spent = measure(lambda: attend(qkv, products, side, side), device, 10)  # noqa: B023
                rows.append((f"{name} {what}", way, f"{spent * 1000:.2f}"))
    return rows


@torch.inference_mode()
def encoder_rates(
    config: SSPSAMConfig, device: torch.device, batches: list[int], ceiling: float
) -> tuple[list[Row], float]:
    """Rows, and images/s of the compiled encoder at the largest batch."""
    torch._dynamo.reset()  # type: ignore[no-untyped-call]
    with device:
        encoder = SAMImageEncoder(config.sam).eval()
    operations = 2 * multiplications(config)
    dtype = image_tower_dtype(device)
    side = config.sam.image_size

    def eager(pixels: torch.Tensor) -> torch.Tensor:
        with image_tower_autocast(device, dtype):
            return encoder(pixels).float()  # type: ignore[no-any-return]

    inner = CompiledImageEncoder(encoder, dtype)
    graphed = Graphed(lambda pixels: (inner(pixels),))
    rows: list[Row] = []
    rate = 0.0
    for how, forward in (("eager", eager), ("compiled", lambda pixels: graphed(pixels)[0])):
        for batch in batches:
            pixels = torch.randn(batch, 3, side, side, device=device)
            started = time.perf_counter()
            forward(pixels)
            torch.cuda.synchronize()
            first = time.perf_counter() - started
            torch.cuda.reset_peak_memory_stats()
            rate = batch / measure(lambda: forward(pixels), device, 8)  # noqa: B023
            peak = torch.cuda.max_memory_allocated() / 2**30
            share = rate * operations / ceiling
            rows.append((how, str(batch), f"{rate:.1f}", f"{share:.3f}", f"{peak:.1f}", f"{first:.1f}"))
    return rows, rate


def end_to_end(
    config: SSPSAMConfig, device: torch.device, arguments: argparse.Namespace, encoder_rate: float
) -> list[Row]:
    """Segmenter over photographs of one size in chunks of 64, two at a time as a replica runs them."""
    with device:
        model = SSPSAM(config).eval()
    logits = made_up_logits(config.sam.image_size // 4).to(device)
    decode = model.decode

    def drawn(embedding: torch.Tensor, prompts: torch.Tensor, image_index: torch.Tensor) -> Any:
        _, predicted_iou = decode(embedding, prompts, image_index)
        return logits[torch.arange(len(image_index), device=device) % PHRASES], predicted_iou

    model.decode = drawn  # type: ignore[method-assign]
    fast_float32()
    batch = max(arguments.batches)
    segmenter = Segmenter(model, SegmenterConfig(images_per_batch=batch, compiled=True, threads=8))
    photo = jpeg(1280, 853)
    rows: list[Row] = []
    for count in arguments.phrases:
        phrases = [f"the person number {number} from the left" for number in range(count)]
        segmenter.segment([photo] * batch, [phrases] * batch)
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        with counted_waits() as waits:
            images, spent = run_chunks(segmenter, photo, phrases, arguments.seconds)
        rate = images / spent
        share = f"{rate / encoder_rate:.3f}" if encoder_rate else ""
        peak = torch.cuda.max_memory_allocated() / 2**30
        busy = [f"{segmenter.timings[name] / spent:.2f}" for name in ("image", "phrase", "rle")]
        rows.append(
            (str(count), f"{rate:.1f}", share, *busy, f"{waits[0] * batch / images:.2f}", f"{peak:.1f}")
        )
        segmenter.reset_timings()
    return rows


def run_chunks(segmenter: Segmenter, photo: bytes, phrases: list[str], seconds: float) -> tuple[int, float]:
    """Images and seconds between the ends of the first and of the last chunk that two threads run."""
    ends: list[float] = []
    stop = time.perf_counter() + seconds

    def work() -> None:
        while time.perf_counter() < stop:
            segmenter.segment_images([photo] * 64, [phrases] * 64)
            ends.append(time.perf_counter())

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ends.sort()
    # The last chunk has the machine to itself: it ends sooner than its like.
    return 64 * (len(ends) - 2), ends[-2] - ends[0]


class counted_waits:  # noqa: N801
    """Counts events that threads wait for, one a batch, and CUDA calls that wait by themselves."""

    def __enter__(self) -> list[int]:
        counts = [0]
        self._copied = phrase_batches.copied

        def counted(device: torch.device) -> Callable[[], None] | None:
            counts[0] += 1
            return self._copied(device)

        phrase_batches.copied = counted
        self._caught = warnings.catch_warnings()
        self._caught.__enter__()
        warnings.simplefilter("always")

        def seen(message: Any, category: Any, *rest: Any, **named: Any) -> None:
            counts[0] += "synchroniz" in str(message)

        warnings.showwarning = seen
        torch.cuda.set_sync_debug_mode("warn")
        return counts

    def __exit__(self, *what: object) -> None:
        torch.cuda.set_sync_debug_mode("default")
        self._caught.__exit__(None, None, None)
        phrase_batches.copied = self._copied


def precision(device: torch.device, count: int) -> list[Row]:
    """IoU of the bundled model's masks with its float32 ones: towers eager and compiled, decoder in TF32."""
    from sspsam.scenes import scenes

    drawn = list(scenes("heldout", 0, count))
    images = [scene.image for scene in drawn]
    phrases = [[one.text for one in scene.phrases] for scene in drawn]
    model = SSPSAM.from_pretrained("tiny", device=device)

    def masks(dtype: torch.dtype | None, compiled: bool, fast: bool) -> list[Any]:
        fast_float32(fast)
        model.image_tower_dtype = dtype
        segmenter = Segmenter(model, SegmenterConfig(compiled=compiled))
        results = [
            one
            for start in range(0, count, 8)
            for one in segmenter.segment(images[start : start + 8], phrases[start : start + 8])
        ]
        fast_float32(False)
        return [decode_rle(mask.rle) for image in results for mask in image]

    exact = masks(torch.float32, False, False)
    rows: list[Row] = []
    for how, got in (
        ("float32, compiled", masks(torch.float32, True, False)),
        ("float32 towers, fast float32", masks(torch.float32, False, True)),
        ("half towers", masks(None, False, False)),
        ("half towers, compiled", masks(None, True, False)),
        ("half towers, compiled, fast float32: a replica", masks(None, True, True)),
    ):
        ious = [
            1.0 if not (a | b).any() else float((a & b).sum() / (a | b).sum())
            for a, b in zip(exact, got, strict=True)
        ]
        rows.append((how, f"{sum(ious) / len(ious):.5f}", f"{min(ious):.3f}", str(len(ious))))
    return rows


if __name__ == "__main__":
    sys.exit(main())
