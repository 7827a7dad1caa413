"""One record type for every benchmark: an image, a phrase, and its true mask and box."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from tokenize import TokenError
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask

from sspsam.data.benchmark_files import read_bytes
from sspsam.errors import DataError, one_line
from sspsam.rle import check_outline, check_rle

Rasteriser = Literal["coco", "phrasecut"]


@dataclass(frozen=True)
class ImageRef:
    """Where the encoded bytes of an image are; the fields of `schema.IMAGE_REF_TYPE`."""

    url: str
    member: str | None = None
    offset: int | None = None
    length: int | None = None


@dataclass(frozen=True)
class Segmentation:
    """A mask as its dataset keeps it, drawn only on access: the union of all parts.

    Attributes:
        rings: polygons, each the bytes of a (n, 2) little-endian float64 array of (x, y) pixels of
            the original image, origin at the top left corner.
        rles: ((height, width), counts) in COCO's compressed spelling.
        file: path or URL of a `.npy` array (height, width); above zero is inside.
        rasteriser: how `rings` become pixels. "coco": pycocotools. "phrasecut": each vertex cut to
            whole pixels and outline included, as the dataset's own evaluator draws them (Pillow).
    """

    rings: tuple[bytes, ...] = ()
    rles: tuple[tuple[tuple[int, int], str], ...] = ()
    file: str | None = None
    rasteriser: Rasteriser = "coco"

    @classmethod
    def from_polygons(
        cls, polygons: Iterable[Sequence[Any]], rasteriser: Rasteriser = "coco"
    ) -> Segmentation:
        """From flat [x0, y0, x1, y1, ...] lists, or lists of [x, y].

        Polygons that bound no area (fewer than 3 points, or an odd number of values) are left out.
        For "phrasecut" two points are kept: that evaluator draws them as a line.
        """
        least = 2 if rasteriser == "phrasecut" else 3
        rings = []
        for polygon in polygons:
            values = np.asarray(polygon, dtype="<f8").reshape(-1)
            if values.size % 2 == 0 and values.size >= 2 * least:
                rings.append(values.tobytes())
        return cls(rings=tuple(rings), rasteriser=rasteriser)

    @classmethod
    def from_coco(cls, segmentations: Iterable[Any]) -> Segmentation:
        """From COCO `segmentation` values: polygon lists, one RLE (packed or not), or RLE lists."""
        polygons: list[Sequence[float]] = []
        rles: list[tuple[tuple[int, int], str]] = []
        for value in segmentations:
            parts = [value] if isinstance(value, Mapping) else list(value)
            for part in parts:
                if isinstance(part, Mapping):
                    rles.append(_compressed(part))
                else:
                    polygons.append(part)
        return cls(rings=cls.from_polygons(polygons).rings, rles=tuple(rles))

    def rle(self, height: int, width: int, storage_options: dict[str, Any] | None = None) -> dict[str, Any]:
        """COCO RLE `{"size": [height, width], "counts": bytes}` of the union.

        `storage_options` are fsspec's, for `file`.

        Raises:
            DataError: a part was made for an image of another size, or `file` cannot be read.
        """
        parts = [self._check(rle, height, width) for rle in self.rles]
        if self.rings:
            points = [np.frombuffer(ring, "<f8").reshape(-1, 2) for ring in self.rings]
            check_outline(points)
            if self.rasteriser == "phrasecut":
                parts.append(_encode(_draw(points, height, width)))
            else:
                flat = [ring.reshape(-1).tolist() for ring in points]
                parts.extend(coco_mask.frPyObjects(flat, height, width))
        if self.file is not None:
            parts.append(_encode(_load(self.file, height, width, storage_options)))
        if not parts:
            return _encode(np.zeros((height, width), bool))
        return parts[0] if len(parts) == 1 else coco_mask.merge(parts)

    @staticmethod
    def _check(rle: tuple[tuple[int, int], str], height: int, width: int) -> dict[str, Any]:
        size, counts = rle
        if tuple(size) != (height, width):
            raise DataError(
                f"the truth is a mask of {size[1]} x {size[0]} pixels, its image has "
                f"{width} x {height}: the annotations belong to other images"
            )
        packed = {"size": [height, width], "counts": counts.encode("ascii")}
        check_rle(packed)  # pycocotools trusts what it is given
        return packed


@dataclass(frozen=True)
class Record:
    """A phrase about an image, and the truth.

    Attributes:
        key: unique in its dataset and split.
        image: where the image is.
        phrase: the referring expression as published.
        split: the split it was read from.
        has_target: false if the phrase means nothing in the image.
        segmentation: the mask; None where there is no target, and where only the box is known.
        box: (x, y, width, height) in pixels of the original image; None if there is no target.
        width, height: of the image in pixels, None where the dataset does not say.
        ids: the dataset's own identifiers, by their names there.
        subsets: names under which scores are also reported, e.g. "p_att" or "category:dog".
    """

    key: str
    image: ImageRef
    phrase: str
    split: str
    has_target: bool
    segmentation: Segmentation | None = None
    box: tuple[float, float, float, float] | None = None
    width: int | None = None
    height: int | None = None
    ids: Mapping[str, Any] = field(default_factory=dict, hash=False)
    subsets: tuple[str, ...] = ()

    def mask(self, height: int, width: int, storage_options: dict[str, Any] | None = None) -> np.ndarray:
        """Boolean (height, width) mask in the original image, all false without a target.

        `storage_options` are fsspec's, for masks that lie in files.

        Raises:
            DataError: only the box of the target is known, or the mask is of another size.
        """
        return coco_mask.decode(self.rle(height, width, storage_options)).astype(bool)

    def rle(self, height: int, width: int, storage_options: dict[str, Any] | None = None) -> dict[str, Any]:
        """`mask` as COCO RLE with `counts` as bytes."""
        if self.segmentation is not None:
            try:
                return self.segmentation.rle(height, width, storage_options)
            except (DataError, LookupError, TypeError, ValueError, OverflowError) as error:
                raise DataError(f"record {self.key} of {self.image.url}: {one_line(error)}") from error
        if self.has_target:
            raise DataError(
                f"record {self.key} of {self.image.url} has a box and no mask: it can pre-train "
                "boxes, and masks can neither be scored nor trained on it"
            )
        return _encode(np.zeros((height, width), bool))


def group_by_image(records: Iterable[Record]) -> list[list[Record]]:
    """The records of each image together, so that its image is encoded once; first seen first."""
    groups: dict[ImageRef, list[Record]] = {}
    for record in records:
        groups.setdefault(record.image, []).append(record)
    return list(groups.values())


def union_box(
    boxes: Iterable[Sequence[float]],
) -> tuple[float, float, float, float] | None:
    """The smallest box that holds all boxes, (x, y, width, height) each; None of none."""
    corners = np.asarray(list(boxes), dtype=np.float64).reshape(-1, 4)
    if not len(corners):
        return None
    left, top = corners[:, :2].min(axis=0)
    right, bottom = (corners[:, :2] + corners[:, 2:]).max(axis=0)
    return float(left), float(top), float(right - left), float(bottom - top)


def _encode(mask: np.ndarray) -> dict[str, Any]:
    return coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))


def _compressed(rle: Mapping[str, Any]) -> tuple[tuple[int, int], str]:
    height, width = (int(side) for side in rle["size"])
    counts = rle["counts"]
    if isinstance(counts, (list, tuple)):  # the uncompressed spelling of crowds
        packed = {"size": [height, width], "counts": list(counts)}
        counts = coco_mask.frPyObjects(packed, height, width)["counts"]
    if isinstance(counts, bytes):
        counts = counts.decode("ascii")
    return (height, width), counts


def _load(file: str, height: int, width: int, storage_options: dict[str, Any] | None) -> np.ndarray:
    """A `.npy` mask, (height, width) or (height, width, 1), as bool."""
    data = read_bytes(file, storage_options)
    try:
        array = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, SyntaxError, TokenError) as error:  # its header is Python's text
        raise DataError(f"{file} is no mask ({one_line(error)}): make it again") from error
    if array.shape not in ((height, width), (height, width, 1)):
        found = " x ".join(map(str, array.shape[1::-1] + array.shape[2:]))
        raise DataError(
            f"{file} is a mask of {found} pixels, its image has {width} x {height}: make the masks "
            "from the same images"
        )
    return np.asarray(array.reshape(height, width) > 0)


def _draw(rings: Sequence[np.ndarray], height: int, width: int) -> np.ndarray:
    """PhraseCut's own drawing (VGPhraseCut `data_transfer.polygons_to_mask`): truncated vertices,
    outline and inside set, polygons united."""
    canvas = Image.new("L", (width, height), 0)
    pen = ImageDraw.Draw(canvas)
    for ring in rings:
        pen.polygon([(int(x), int(y)) for x, y in ring], outline=1, fill=1)
    return np.asarray(canvas, dtype=bool)
