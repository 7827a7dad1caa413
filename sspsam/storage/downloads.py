"""What people see of a download: one line that says how large it is, and a progress bar on terminals."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, DownloadColumn, TimeRemainingColumn, TransferSpeedColumn
from tqdm import TqdmExperimentalWarning
from tqdm.rich import tqdm_rich

_BYTES_A_MINUTE = 60 * 100e6 / 8  # of a line of 100 Mbit/s


class DownloadBar(tqdm_rich):
    """Rich's bar with size, speed and time left, on stderr, within 80 columns; nothing where that is no
    terminal."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        console = Console(stderr=True)
        columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
        options |= {"progress": columns, "options": {"console": console}, "disable": not console.is_terminal}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", TqdmExperimentalWarning)
            super().__init__(*arguments, **options)


def announce(url: str, size: int, folder: Path) -> None:
    """Say on stderr what is going to be downloaded, how much it is (bytes) and where it is kept."""
    print(f"downloading {url} ({weight_text(size)}), once, into {folder}", file=sys.stderr, flush=True)


def weight_text(size: int | None) -> str:
    """Bytes, and how long that takes where it is long: "2.1 GB, about 3 minutes at 100 Mbit/s"."""
    minutes = (size or 0) / _BYTES_A_MINUTE
    return size_text(size) + (f", about {minutes:.0f} minutes at 100 Mbit/s" if minutes >= 1.5 else "")


def size_text(size: int | None) -> str:
    """Bytes as people read them: "2.1 GB"."""
    return "size unknown" if size is None else decimal(size)
