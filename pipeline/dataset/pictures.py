"""The dataset's images as JPEG of the size that the page shows, made on demand, cached in memory."""

from __future__ import annotations

import io
import threading
from collections import OrderedDict
from typing import Any

from PIL import Image

from pipeline.dataset.annotation_dataset import AnnotationDataset
from pipeline.dataset.image_rows import Rows
from sspsam.errors import DataError
from sspsam.images.decoding import decode_image
from sspsam.images.load_image import load_image

#: Longest sides that are made, pixels; a request is rounded up to one of them.
SIDES = (320, 640, 1280, 2560)


class Pictures:
    """Thumbnails of images by id. Every picture is decoded and encoded again: the stored bytes
    never reach the browser."""

    def __init__(
        self, rows: Rows, dataset: AnnotationDataset, *, cache_mb: int = 256, threads: int = 8
    ) -> None:
        self._rows = rows
        self._dataset = dataset
        self._limit = cache_mb * 2**20
        self._held = 0
        self._cache: OrderedDict[tuple[int, int], bytes] = OrderedDict()
        self._lock = threading.Lock()
        self._decoding = threading.BoundedSemaphore(threads)

    def get(self, image: int, side: int) -> bytes:
        """JPEG of an image, upright, its longest side at most about `side` pixels.

        Raises DataError (no such image, its place unknown) or what `load_image` and `decode_image`
        raise.
        """
        side = next((size for size in SIDES if size >= side), SIDES[-1])
        with self._lock:
            if (image, side) in self._cache:
                self._cache.move_to_end((image, side))
                return self._cache[image, side]
        buffer = io.BytesIO()
        self.image(image, side).save(buffer, "JPEG", quality=88)
        self._keep((image, side), buffer.getvalue())
        return buffer.getvalue()

    def image(self, image: int, side: int) -> Image.Image:
        """An image, RGB and upright, its longest side at most `side` pixels. Raises as `get` does."""
        with self._decoding:
            picture = decode_image(self.encoded(image))
            picture.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=3.0)
            return picture

    def encoded(self, image: int) -> bytes:
        """The image's own encoded bytes, from the row or from where `image_ref` points."""
        row = self._rows.read([image], ["key", "image", "image_ref"])[0]
        if row["image"] and row["image"]["bytes"]:
            return bytes(row["image"]["bytes"])
        reference: dict[str, Any] | None = row["image_ref"]
        if not reference or not reference["url"]:
            raise DataError(f"{row['key']}: the row holds neither an image nor where it is")
        return load_image(reference, self._dataset.storage_options, places=self._dataset.image_places)

    def _keep(self, name: tuple[int, int], data: bytes) -> None:
        with self._lock:
            if name not in self._cache:
                self._cache[name] = data
                self._held += len(data)
            while self._held > self._limit and self._cache:
                self._held -= len(self._cache.popitem(last=False)[1])
