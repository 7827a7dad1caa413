"""What benchmarks of the model share: a clock that waits for the device, memory, a photo, the machine."""

from __future__ import annotations

import io
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image


def measure(function: Callable[[], Any], device: torch.device, repeats: int) -> float:
    """Median seconds of `repeats` runs after one that is not counted."""
    times = []
    for _ in range(repeats + 1):
        if device.type == "cuda":
            torch.cuda.synchronize()
        started = time.perf_counter()
        function()
        if device.type == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])


def peak_resident() -> float:
    """MiB, from Linux's account of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))


def jpeg(width: int, height: int) -> bytes:
    """A photo-like JPEG: smooth colours with grain."""
    rng = np.random.default_rng(0)
    rough = Image.fromarray(rng.integers(0, 255, (24, 32, 3), np.uint8))
    smooth = np.asarray(rough.resize((width, height), Image.Resampling.BICUBIC), np.int16)
    grain = rng.integers(-12, 12, (height, width, 1), np.int16)
    buffer = io.BytesIO()
    Image.fromarray((smooth + grain).clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


PHRASES = 5


def made_up_logits(side: int) -> torch.Tensor:
    """(PHRASES, side, side) logits: things with uneven edges, as masks have."""
    random = torch.Generator().manual_seed(0)
    rough = torch.randn(1, PHRASES, 12, 12, generator=random)
    return torch.nn.functional.interpolate(rough, (side, side), mode="bicubic")[0] * 4 - 2


def machine(device: torch.device) -> str:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor()
    return (
        f"{name or platform.machine()}, {os.cpu_count()} cores, {torch.get_num_threads()} torch "
        f"threads, torch {torch.__version__}, Python {platform.python_version()}"
    )
