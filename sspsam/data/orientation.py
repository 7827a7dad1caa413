"""EXIF orientation removed from JPEGs: benchmarks annotate the pixels as they are stored."""

from __future__ import annotations

_EXIF = b"Exif\x00\x00"


def ignore_orientation(data: bytes) -> bytes:
    """A JPEG without its EXIF block, so that no decoder turns it; anything else unchanged.

    Segment syntax: ITU-T T.81, annex B; EXIF stands in APP1 segments.
    """
    if not data.startswith(b"\xff\xd8") or _EXIF not in data[:65536]:
        return data
    kept, position = [data[:2]], 2
    while position + 4 <= len(data) and data[position] == 0xFF and data[position + 1] != 0xDA:
        end = position + 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        exif = data[position + 1] == 0xE1 and data[position + 4 : position + 10] == _EXIF
        if not exif:
            kept.append(data[position:end])
        position = end
    return b"".join([*kept, data[position:]])
