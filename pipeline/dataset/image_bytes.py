"""Image bytes for other tools: fetched ahead, upright, under safe names, copied, linked or referenced."""

from __future__ import annotations

import hashlib
import io
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from PIL import Image

from sspsam.errors import ConfigError, DataError, SSPSAMError
from sspsam.images.decoding import decode_image
from sspsam.images.image_places import ImagePlaces
from sspsam.images.load_image import load_image

A = TypeVar("A")
B = TypeVar("B")

_SUFFIXES = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp", "GIF": ".gif", "BMP": ".bmp", "TIFF": ".tif"}
_ORIENTATION = 0x0112
_SAFE = re.compile(r"[A-Za-z0-9-]+(_[A-Za-z0-9-]+)*")


def safe_name(text: str) -> str:
    """A file name of letters, digits, "-" and single "_": `text` if it is one, else near it, with a hash."""
    if _SAFE.fullmatch(text) and len(text) <= 100:
        return text
    near = re.sub(r"[^A-Za-z0-9-]+", "_", text)[:80].strip("_")
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
    return f"{near}-{digest}" if near else digest


def image_bytes(
    row: Mapping[str, Any], options: Mapping[str, Any] | None, places: ImagePlaces
) -> tuple[bytes, str]:
    """(encoded bytes, file name suffix) of a row's image, upright, of the row's width and height.

    An image with an EXIF orientation is written again upright, since masks are in the upright frame and
    many tools ignore EXIF. Raises DataError where the image is missing, unreadable or of another size.
    """
    embedded = (row.get("image") or {}).get("bytes")
    name = place_of(row)
    try:
        data = embedded
        if data is None:
            data = load_image(row["image_ref"] or {}, options, places=places)
        with Image.open(io.BytesIO(data)) as opened:
            kind, size = opened.format or "", opened.size
            turned = opened.getexif().get(_ORIENTATION, 1) not in (0, 1)
        if turned:
            data, kind, size = _upright(data, kind)
    except (SSPSAMError, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{name}: {error}") from error
    if size != (row["width"], row["height"]):
        raise DataError(
            f"{name}: is {size[0]} x {size[1]} now, was {row['width']} x {row['height']} when annotated"
        )
    return data, _SUFFIXES.get(kind, f".{kind.lower() or 'img'}")


def place_of(row: Mapping[str, Any]) -> str:
    """Where a row's image is, for messages: URL and member, or shard and key."""
    ref = row.get("image_ref") or {}
    if not ref.get("url"):
        return f"{row['shard']}/{row['key']}"
    return str(ref["url"]) if ref.get("member") is None else f"{ref['url']} ({ref['member']})"


def local_file(row: Mapping[str, Any]) -> Path:
    """The local file that holds just this row's image. Raises ConfigError where there is none."""
    ref = row.get("image_ref") or {}
    url = str(ref.get("url") or "")
    path = Path(url.removeprefix("file://"))
    if ref.get("member") is not None and path.is_dir():
        path = path / ref["member"]
    if "://" in url.removeprefix("file://") or ref.get("offset") is not None or not path.is_file():
        raise ConfigError(f"--images link: {place_of(row)} is not a local file of its own; use --images copy")
    return path.resolve()


def url_of(row: Mapping[str, Any]) -> str:
    """One URL for a row's image; a member follows the URL of its archive after '#'."""
    ref = row.get("image_ref") or {}
    url, member = str(ref.get("url") or ""), ref.get("member")
    if member is None:
        return url
    archive = PurePosixPath(url).suffix in (".tar", ".gz", ".tgz", ".bz2", ".xz", ".parquet", ".pq")
    return f"{url}#{member}" if archive else f"{url.rstrip('/')}/{member}"


def ahead(work: Callable[[A], B], items: Iterable[A], workers: int) -> Iterator[B]:
    """`map` in order by threads, at most 4 x `workers` items ahead of the reader."""
    waiting: deque[Future[B]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) >= 4 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def in_batches(items: Iterable[A], size: int) -> Iterator[list[A]]:
    """The items in lists of `size`, the last one shorter."""
    iterator = iter(items)
    return iter(lambda: list(islice(iterator, size)), [])


def _upright(data: bytes, kind: str) -> tuple[bytes, str, tuple[int, int]]:
    image = decode_image(data)
    buffer = io.BytesIO()
    if kind == "JPEG":
        image.save(buffer, "JPEG", quality=95, subsampling=0)
    else:
        kind = "PNG"
        image.save(buffer, "PNG")
    return buffer.getvalue(), kind, image.size
