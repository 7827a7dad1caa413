"""Image/caption shards in which some samples are bad, in twelve ways."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.pipeline.annotate.inputs import picture, sample_members, write_tar

Members = list[tuple[str, bytes]]


def _png_of_size(width: int, height: int) -> bytes:
    """A PNG that says it is that large, and holds nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def _image(data: bytes) -> Callable[[str, Members], Members]:
    return lambda key, members: [(f"{key}.jpg", data), members[1]]


def _caption(text: bytes) -> Callable[[str, Members], Members]:
    return lambda key, members: [members[0], (f"{key}.txt", text)]


_NOISE = np.random.default_rng(0).bytes(3000)
_PNG = picture(1, format_="PNG", size=(300, 300))

#: (kind of reason, how the sample's members are spoiled). A duplicate takes the key before it.
WAYS: list[tuple[str, Callable[[str, Members], Members]]] = [
    ("not_an_image", _image(_NOISE)),
    ("not_an_image", _image(b"<html><body>404 Not Found</body></html>")),
    ("truncated_image", _image(picture(1, size=(400, 400))[:2000])),
    ("truncated_image", _image(_PNG[: len(_PNG) // 2])),
    ("zero_size", _image(b"")),
    ("decompression_bomb", _image(_png_of_size(60_000, 60_000))),
    ("missing_image", lambda key, members: members[1:]),
    ("duplicate_key", lambda key, members: [(f"{int(key) - 1:06d}{n[6:]}", d) for n, d in members]),
    ("unreadable_caption", lambda key, members: [members[0], (f"{key}.json", b'{"caption": "a d')]),
    ("empty_caption", _caption(b" \n ")),
    ("no_phrase_found", _caption(b"the left of it")),
    ("no_phrase_found", _caption(b"!!! ???")),
    ("language", _caption(b"Schwarze Katze auf dem Dach")),
]


def spoil(folder: Path, samples: int, bad: int, shard_size: int) -> tuple[Path, dict[str, str]]:
    """Write tars of `samples` samples, every (samples / bad)th of them spoiled, the ways in turn.

    Returns:
        The folder, and `shard/index` of each bad sample with the kind of its reason.
    """
    step = samples // bad
    reasons: dict[str, str] = {}
    for first in range(0, samples, shard_size):
        name = f"{first // shard_size:05d}"
        members: Members = []
        for number in range(first, first + shard_size):
            good = sample_members(number, 1)
            # Away from a shard's first sample, because a duplicate needs one before it.
            if number % step == step // 2 and number // step < bad:
                kind, way = WAYS[number // step % len(WAYS)]
                good = way(f"{number:06d}", good)
                reasons[f"{name}/{number - first}"] = kind
            members += good
        write_tar(folder / f"{name}.tar", members)
    (folder / "reasons.json").write_text(json.dumps(reasons))
    return folder, reasons
