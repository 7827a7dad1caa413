"""Outputs of the frozen image towers, computed once and kept as Parquet: epochs then run neither tower.

A row is one orientation of one image. Rows are their own row groups, so that one is read by itself,
from a local disk or by ranges from an object store. `pipeline.train.cache_features` writes them.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any, Final

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from sspsam.errors import DataError
from sspsam.storage.storage_options import options_for

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

_FOOTERS = 256  # kept in memory; of half a megabyte each
_THREADS = 16


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
        self._fs, root = fsspec.core.url_to_fs(url, **options_for(url, storage_options))
        paths = sorted(self._fs.glob(f"{root.rstrip('/')}/{FOLDER}/*/*.parquet"))
        if not paths:
            raise DataError(f"{url} holds no cached features: train with --cache-features first")
        self._footer = lru_cache(_FOOTERS)(self._read_footer)
        with ThreadPoolExecutor(_THREADS) as pool:
            self._rows = {
                key: (path, group)
                for path, keys in zip(paths, pool.map(self._keys, paths), strict=True)
                for group, key in enumerate(keys)
            }

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
        row = self._read(*place)
        return (
            _unpacked(row["clip_tokens"], row["clip_shape"]),
            _unpacked(row["sam_embedding"], row["sam_shape"]),
            row["width"],
            row["height"],
        )

    def _read(self, path: str, group: int) -> dict[str, Any]:
        """A row by one range read of its row group: Arrow joins the neighbouring columns."""
        with self._fs.open(path, "rb", cache_type="none") as file:
            stored = pq.ParquetFile(file, metadata=self._footer(path), pre_buffer=True)
            row: dict[str, Any] = stored.read_row_group(group).to_pylist()[0]
        return row

    def _keys(self, path: str) -> list[tuple[str, bool]]:
        """(image key, mirrored) of each row of a file. Of a single row the least value is the value, so
        the footer says all."""
        footer = self._footer(path)
        groups = [footer.row_group(group) for group in range(footer.num_row_groups)]
        if any(group.num_rows != 1 for group in groups):
            raise DataError(f"{path} is no file of cached features: its row groups are not one row each")
        return [(group.column(0).statistics.min, group.column(1).statistics.min) for group in groups]

    def _read_footer(self, path: str) -> pq.FileMetaData:
        # Without the cache of object stores' files, which reads 50 MB ahead.
        with self._fs.open(path, "rb", cache_type="none") as file:
            return pq.read_metadata(file)


def _packed(tensor: Tensor) -> bytes:
    data: bytes = tensor.detach().to("cpu", torch.float16).contiguous().numpy().tobytes()
    return data


def _unpacked(data: bytes, shape: list[int]) -> Tensor:
    return torch.from_numpy(np.frombuffer(data, "<f2").reshape(shape).copy())
