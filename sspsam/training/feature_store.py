"""Outputs of the frozen image towers, computed once and kept as Parquet: epochs then run neither tower.

A row is one orientation of one image. Rows are their own row groups, so that one is read by itself,
from a local disk or by ranges from an object store. `pipeline.cache_features` writes them.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, Final

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from sspsam.errors import DataError

#: Folder under the cache's URL that holds the files, as <shard>/<chunk>.parquet.
FOLDER: Final = "features"

#: `clip_tokens` and `sam_embedding` are little-endian float16 in C order, of the shapes beside them:
#: (1 + G*G, E) and (C, H, W), as `SSPSAM.encode_image` gives them.
FEATURE_SCHEMA: Final = pa.schema(
    [
        pa.field("image_key", pa.string(), nullable=False),
        pa.field("mirrored", pa.bool_(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),  # pixels of the original image
        pa.field("height", pa.int32(), nullable=False),
        pa.field("clip_tokens", pa.large_binary(), nullable=False),
        pa.field("clip_shape", pa.list_(pa.int32(), 2), nullable=False),
        pa.field("sam_embedding", pa.large_binary(), nullable=False),
        pa.field("sam_shape", pa.list_(pa.int32(), 3), nullable=False),
    ],
    metadata={"sspsam.features": "1"},
)

_OPEN_FILES = 64


def feature_row(
    image_key: str, mirrored: bool, size: tuple[int, int], tokens: Tensor, embedding: Tensor
) -> dict[str, Any]:
    """A row of `FEATURE_SCHEMA` from one image's tensors; `size` is (width, height)."""
    return {
        "image_key": image_key,
        "mirrored": mirrored,
        "width": size[0],
        "height": size[1],
        "clip_tokens": _packed(tokens),
        "clip_shape": list(tokens.shape),
        "sam_embedding": _packed(embedding),
        "sam_shape": list(embedding.shape),
    }


class FeatureStore:
    """Reads cached features by image and orientation. May be used from several threads.

    Args:
        url: folder or URL that `cache_features` wrote.
        storage_options: for fsspec.

    Raises:
        DataError: there is no cache.
    """

    def __init__(self, url: str, storage_options: Mapping[str, Any] | None = None) -> None:
        self.url = url
        self._fs, root = fsspec.core.url_to_fs(url, **(storage_options or {}))
        paths = sorted(self._fs.glob(f"{root.rstrip('/')}/{FOLDER}/*/*.parquet"))
        if not paths:
            raise DataError(f"{url} holds no cached features: train with --cache-features first")
        self._rows: dict[tuple[str, bool], tuple[str, int]] = {}
        self._files: OrderedDict[str, pq.ParquetFile] = OrderedDict()
        self._lock = threading.Lock()
        for path in paths:
            names = self._open(path).read(columns=["image_key", "mirrored"])
            keys = zip(names["image_key"].to_pylist(), names["mirrored"].to_pylist(), strict=True)
            self._rows |= {key: (path, group) for group, key in enumerate(keys)}

    def __len__(self) -> int:
        return len(self._rows)

    def get(self, image_key: str, mirrored: bool) -> tuple[Tensor, Tensor, int, int]:
        """CLIP tokens (1 + G*G, E), SAM embedding (C, H, W), both float16; width and height in pixels.

        Raises:
            DataError: the image is not in the cache.
        """
        place = self._rows.get((image_key, mirrored))
        if place is None:
            turned = "mirrored " if mirrored else ""
            raise DataError(
                f"{self.url} has no features of the {turned}image {image_key}: it could not be read "
                "when they were computed, or other data or another --flip was cached there"
            )
        with self._lock:
            table = self._open(place[0]).read_row_group(place[1])
        row = table.to_pylist()[0]
        return (
            _unpacked(row["clip_tokens"], row["clip_shape"]),
            _unpacked(row["sam_embedding"], row["sam_shape"]),
            row["width"],
            row["height"],
        )

    def _open(self, path: str) -> pq.ParquetFile:
        if path in self._files:
            self._files.move_to_end(path)
            return self._files[path]
        self._files[path] = pq.ParquetFile(self._fs.open(path, "rb"))
        if len(self._files) > _OPEN_FILES:
            self._files.popitem(last=False)[1].close(force=True)
        return self._files[path]


def _packed(tensor: Tensor) -> bytes:
    data: bytes = tensor.detach().to("cpu", torch.float16).contiguous().numpy().tobytes()
    return data


def _unpacked(data: bytes, shape: list[int]) -> Tensor:
    return torch.from_numpy(np.frombuffer(data, "<f2").reshape(shape).copy())
