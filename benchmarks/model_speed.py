"""How fast the model is, against bare baselines in the same run; prints ratios.

    python -m benchmarks.model_speed                  # ViT-B at 1024 px: minutes on a CPU
    python -m benchmarks.model_speed --quick          # the tiny layout: seconds
    python -m benchmarks.model_speed --sam vit_h      # what the published checkpoints hold; wants a GPU

(a) k phrases an image, against the authors' way: one phrase and one image encode at a time;
(b) SAM's image encoder against the stock one: time, peak memory, greatest difference;
(c) decoding and resizing in threads, against the rate of the model;
(d) RLE, against pycocotools as it is usually called;
(e) with a GPU: images per second and share of the measured matmul rate, with and without torch.compile.

Weights are random: they do not change the time.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco_mask
from rich.console import Console
from rich.table import Table

from benchmarks.measuring import jpeg, machine, measure, peak_resident
from sspsam import SSPSAM, Segmenter, SegmenterConfig, SSPSAMConfig
from sspsam.images.decoding import decode_image
from sspsam.inference.masks import encode_rle
from sspsam.modeling.precision import image_tower_autocast, image_tower_dtype
from sspsam.modeling.sam import SAMImageEncoder
from sspsam.modeling.segment_anything import ImageEncoderViT

#: (what, baseline, ours, ratio); times are the median of the repeats.
Row = tuple[str, str, str, str]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="b16-224", help="layout (%(default)s)")
    parser.add_argument("--sam", default="vit_b", help="SAM's image encoder (%(default)s)")
    parser.add_argument("--quick", action="store_true", help="tiny layout, few repeats")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--sections", default="abcde", help="which to run (%(default)s)")
    parser.add_argument("--phrases", type=int, nargs="+", default=[1, 5, 20], metavar="K")
    parser.add_argument("--repeats", type=int, default=3, help="timed runs, after one untimed")
    parser.add_argument("--json", metavar="FILE", help="also write the rows here")
    parser.add_argument("--peak", choices=("stock", "ours"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.preset, arguments.sam, arguments.repeats = "tiny", None, 2
    config = SSPSAMConfig.preset(arguments.preset, sam=arguments.sam)
    device = torch.device(arguments.device)
    if arguments.peak:
        print(peak_memory(config, device, arguments.peak))
        return 0
    console = Console(width=120)
    console.print(f"{machine(device)}; {arguments.preset}, SAM {arguments.sam or 'of the preset'}")
    sections: dict[str, tuple[str, Callable[[], list[Row]]]] = {
        "a": (
            "(a) k phrases an image",
            lambda: phrases_per_image(config, device, arguments.phrases, arguments.repeats),
        ),
        "b": ("(b) SAM's image encoder", lambda: image_encoder(config, device, arguments)),
        "c": (
            "(c) decode + resize against the model",
            lambda: decoding(config, device, arguments.repeats),
        ),
        "d": ("(d) RLE of 1024 px masks", lambda: rle(arguments.repeats)),
        "e": ("(e) image encoder on the GPU", lambda: gpu_rate(config, device, arguments.repeats)),
    }
    written: dict[str, Any] = {"machine": machine(device), "config": config.to_dict()}
    for letter in arguments.sections:
        title, run = sections[letter]
        if letter == "e" and device.type != "cuda":
            console.print("(e) not run: no CUDA device")
            continue
        table = Table("", "baseline", "ours", "ratio", title=title, title_justify="left")
        written[letter] = run()
        for row in written[letter]:
            table.add_row(*row)
        console.print(table)
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(written, indent=1))
    return 0


@torch.inference_mode()
def phrases_per_image(
    config: SSPSAMConfig, device: torch.device, counts: list[int], repeats: int
) -> list[Row]:
    """Encoded photo to masks: ours in one call, theirs phrase by phrase with the stock encoder."""
    model = build(config, device)
    photo = jpeg(1024, 768)
    rows = []
    for count in counts:
        phrases = [f"the person number {i} from the left" for i in range(count)]

        # The baseline is linear in the phrases: where it is long, a few of them are enough.
        sample = phrases[:5]

        def theirs(sample: list[str] = sample) -> None:
            for phrase in sample:
                authors_way(model, photo, phrase, device)

        def ours(phrases: list[str] = phrases) -> None:
            segmenter = Segmenter(model, SegmenterConfig(images_per_batch=1))
            segmenter.segment([photo], [phrases])

        baseline = measure(theirs, device, repeats) * count / len(sample)
        ratio = baseline / measure(ours, device, repeats)
        rows.append(
            (
                f"k = {count}",
                f"{baseline:.3f} s" + ("" if count <= 5 else " (from 5)"),
                f"{baseline / ratio:.3f} s",
                f"{ratio:.1f}",
            )
        )
    return rows


def authors_way(model: SSPSAM, photo: bytes, phrase: str, device: torch.device) -> Any:
    """One phrase of one image as the authors run it: everything again for each phrase."""
    clip_pixels, sam_pixels, geometry = model.preprocess(photo)
    clip_pixels, sam_pixels = clip_pixels[None].to(device), sam_pixels[None].to(device)
    with image_tower_autocast(device):
        embedding = ImageEncoderViT.forward(model.sam.image_encoder, sam_pixels).float()
    output = model(clip_pixels, model.tokenize([phrase]).to(device), embedding)
    mask = geometry.sam.logits_to_original(output.mask_logits)[0] > 0
    return coco_mask.encode(np.asfortranarray(mask.cpu().numpy().astype(np.uint8)))


@torch.inference_mode()
def image_encoder(config: SSPSAMConfig, device: torch.device, arguments: argparse.Namespace) -> list[Row]:
    """Time in float32 and in the device's own precision, peak memory, greatest difference."""
    encoder = SAMImageEncoder(config.sam).to(device).eval()
    for name, parameter in encoder.named_parameters():
        if "rel_pos" in name:  # they start at zero, which would hide a wrong bias
            torch.nn.init.normal_(parameter, std=0.2)
    pixels = torch.randn(1, 3, config.sam.image_size, config.sam.image_size, device=device)
    rows = []
    for dtype in dict.fromkeys((torch.float32, image_tower_dtype(device))):
        with image_tower_autocast(device, dtype):
            stock_output = ImageEncoderViT.forward(encoder, pixels)
            difference = (encoder(pixels) - stock_output).abs().max()
            before = measure(lambda: ImageEncoderViT.forward(encoder, pixels), device, arguments.repeats)
            after = measure(lambda: encoder(pixels), device, arguments.repeats)
        kind = str(dtype).removeprefix("torch.")
        rows.append((f"{kind}, batch 1", f"{before:.3f} s", f"{after:.3f} s", f"{before / after:.2f}"))
        rows.append((f"{kind}, greatest difference", "", f"{float(difference):.1e}", ""))
    if image_tower_dtype(device) == torch.float32:
        rows.append(("autocast", "", "the policy is float32 here", ""))
    command = [
        sys.executable,
        "-m",
        "benchmarks.model_speed",
        "--preset",
        arguments.preset,
        "--device",
        str(device),
    ]
    command += ["--sam", arguments.sam] if arguments.sam else []
    command += ["--quick"] if arguments.quick else []
    peaks = [
        float(subprocess.check_output([*command, "--peak", which], text=True)) for which in ("stock", "ours")
    ]
    shown = [f"{peak:.0f} MiB" for peak in peaks]
    ratio = f"{peaks[0] / peaks[1]:.2f}"
    rows.append(("peak memory above the weights", shown[0], shown[1], ratio))
    return rows


@torch.inference_mode()
def peak_memory(config: SSPSAMConfig, device: torch.device, which: str) -> float:
    """MiB that one image takes beyond the weights; run in a process of its own."""
    encoder = SAMImageEncoder(config.sam).to(device).eval()
    pixels = torch.randn(1, 3, config.sam.image_size, config.sam.image_size, device=device)
    forward = encoder.forward if which == "ours" else ImageEncoderViT.forward.__get__(encoder)
    torch.mm(torch.ones(64, 64, device=device), torch.ones(64, 64, device=device))
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
        with image_tower_autocast(device):
            forward(pixels)
        return (torch.cuda.max_memory_allocated() - held) / 2**20
    Path("/proc/self/clear_refs").write_text("5")  # Linux: forget the peak of the imports
    before = peak_resident()
    with image_tower_autocast(device):
        forward(pixels)
    return max(0.1, peak_resident() - before)


@torch.inference_mode()
def decoding(config: SSPSAMConfig, device: torch.device, repeats: int) -> list[Row]:
    """Images per second that the threads prepare, against what both image towers take."""
    model = build(config, device)
    batch = 8 if device.type == "cuda" else 1
    clip_pixels, sam_pixels, _ = model.preprocess(jpeg(640, 480))
    clip_batch = clip_pixels[None].repeat(batch, 1, 1, 1).to(device)
    sam_batch = sam_pixels[None].repeat(batch, 1, 1, 1).to(device)
    towers = batch / measure(lambda: model.encode_image(clip_batch, sam_batch), device, repeats)
    threads = min(8, os.cpu_count() or 1)
    rows = []
    for width, height in ((1024, 768), (2048, 1536), (4000, 3000)):
        photo = jpeg(width, height)

        def prepare(_: int, photo: bytes = photo) -> None:
            model.preprocess(decode_image(photo))

        with ThreadPoolExecutor(threads) as pool:
            number = 4 * threads
            spent = measure(lambda: list(pool.map(prepare, range(number))), device, repeats)  # noqa: B023
        rate = number / spent
        rows.append(
            (
                f"JPEG {width} x {height}, {threads} threads",
                f"model {towers:.2f} images/s",
                f"{rate:.1f} images/s",
                f"{rate / towers:.1f}",
            )
        )
    return rows


def rle(repeats: int) -> list[Row]:
    """Milliseconds a mask: row-major masks one by one, and column-major ones in a batch."""
    y, x = np.mgrid[0:1024, 0:1024]
    centres = np.random.default_rng(0).integers(200, 800, (16, 3))
    masks = np.stack(
        [(x - a) ** 2 + (y - b) ** 2 < (60 + c / 3 + 8 * np.sin(x / 9)) ** 2 for a, b, c in centres]
    )
    columns = np.ascontiguousarray(masks.transpose(0, 2, 1))
    host = torch.device("cpu")

    def plain() -> list[Any]:
        return [coco_mask.encode(np.asfortranarray(mask.astype(np.uint8))) for mask in masks]

    assert plain() == encode_rle(columns)
    usual = measure(plain, host, repeats) / len(masks) * 1000
    ours = measure(lambda: encode_rle(columns), host, repeats) / len(masks) * 1000
    return [("ms a mask", f"{usual:.2f}", f"{ours:.2f}", f"{usual / ours:.1f}")]


@torch.inference_mode()
def gpu_rate(config: SSPSAMConfig, device: torch.device, repeats: int) -> list[Row]:
    """Images per second of the encoder, and its share of what a large bfloat16 product reaches."""
    a = torch.randn(8192, 8192, device=device, dtype=torch.bfloat16)
    ceiling = 2 * 8192**3 / measure(lambda: a @ a, device, 20)
    encoder = SAMImageEncoder(config.sam).to(device).eval()
    operations = 2 * multiplications(config)
    rows = [("bfloat16 8192^3 product", f"{ceiling / 1e12:.0f} TFLOP/s", "", "")]
    for name, forward in (("eager", encoder), ("compiled", torch.compile(encoder))):
        for batch in (1, 4, 16):
            size = config.sam.image_size
            pixels = torch.randn(batch, 3, size, size, device=device)
            with image_tower_autocast(device):
                spent = measure(lambda: forward(pixels), device, max(repeats, 5))  # noqa: B023
            rate = batch / spent
            share = rate * operations / ceiling
            rows.append((f"{name}, batch {batch}", "", f"{rate:.1f} images/s", f"{share:.2f}"))
    return rows


def multiplications(config: SSPSAMConfig) -> float:
    """Multiply-adds of SAM's image encoder an image, counted by torch on the stock one."""
    from torch.utils.flop_counter import FlopCounterMode

    sam = config.sam
    with torch.device("meta"):
        encoder = ImageEncoderViT(
            img_size=sam.image_size,
            patch_size=sam.patch_size,
            embed_dim=sam.encoder_width,
            depth=sam.encoder_depth,
            num_heads=sam.encoder_heads,
            out_chans=sam.embed_dim,
            use_rel_pos=False,
            window_size=sam.window,
            global_attn_indexes=sam.global_blocks,
        )
        with FlopCounterMode(display=False) as counter:
            encoder(torch.randn(1, 3, sam.image_size, sam.image_size))
    return counter.get_total_flops() / 2


def build(config: SSPSAMConfig, device: torch.device) -> SSPSAM:
    torch.manual_seed(0)
    return SSPSAM(config).to(device).eval()


if __name__ == "__main__":
    sys.exit(main())
