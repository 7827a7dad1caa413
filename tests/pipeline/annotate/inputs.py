"""Makes small image/caption shards for the tests of the annotate job."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.phrases import Phrase
from pipeline.sources import Sample

NOUNS = ("red square", "blue circle", "dog", "green ball")


def picture(seed: int, size: tuple[int, int] = (96, 80), format_: str = "JPEG") -> bytes:
    """An encoded picture of coloured blocks, another for each seed; size is (width, height)."""
    random = np.random.default_rng(seed)
    width, height = size
    blocks = random.integers(0, 255, (4, 4, 3), dtype=np.uint8)
    pixels = np.kron(blocks, np.ones((-(-height // 4), -(-width // 4), 1), np.uint8))
    sink = io.BytesIO()
    Image.fromarray(pixels[:height, :width]).save(sink, format_)
    return sink.getvalue()


def caption(seed: int) -> str:
    return f"a {NOUNS[seed % 4]} next to a {NOUNS[(seed + 1) % 4]}"


def write_tar(path: Path, members: Iterable[tuple[str, bytes]]) -> Path:
    """A plain tar of (name, bytes) members."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def sample_members(first: int, count: int) -> list[tuple[str, bytes]]:
    """`count` good samples, keys by number, as img2dataset writes them."""
    members = []
    for number in range(first, first + count):
        members.append((f"{number:06d}.jpg", picture(number)))
        members.append((f"{number:06d}.txt", caption(number).encode()))
    return members


def write_shards(folder: Path, shards: int, samples: int) -> Path:
    """`shards` tars of `samples` good samples each. Returns the folder."""
    for shard in range(shards):
        write_tar(folder / f"{shard:05d}.tar", sample_members(shard * samples, samples))
    return folder


def two_phrases(samples: list[Sample]) -> list[list[Phrase]]:
    """A phrase source without a parser: the caption's two names."""
    found = []
    for sample in samples:
        text = sample.caption or ""
        spans = sorted((text.find(noun), noun) for noun in NOUNS if noun in text)
        found.append([Phrase(noun, at, at + len(noun)) for at, noun in spans])
    return found
