"""The annotation files of a dataset that may still grow, each opened and checked by itself.

`open_dataset` refuses a dataset with one bad file, which is right for a job that
trains on it. A viewer shows the rest and says which file is bad.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.core import url_to_fs

from pipeline.dataset.annotation_dataset import AnnotationDataset, check_schema, open_dataset
from sspsam.errors import DataError


@dataclass(frozen=True)
class ListedFile:
    path: str  # inside the file system
    size: int  # bytes


def open_tolerant(output: str, *, storage_options: Mapping[str, Any] | None = None) -> AnnotationDataset:
    """The dataset at `output` without its files' footers read (`files` is empty).

    Raises DataError with the same advice as `open_dataset` if there is no annotation file at all.
    """
    options = dict(storage_options or {})
    fs, root = url_to_fs(str(output), **options)
    dataset = AnnotationDataset(str(output), fs, root.rstrip("/"), (), False, options)
    if not list_files(dataset):
        return open_dataset(output, storage_options=options)
    return dataset


def list_files(dataset: AnnotationDataset) -> list[ListedFile]:
    """Every whole Parquet file below `annotations/` as it is now, sorted by path."""
    folder = f"{dataset.root}/annotations"
    dataset.fs.invalidate_cache(folder)
    try:
        found = dataset.fs.find(folder, detail=True)
    except FileNotFoundError:
        return []
    return [
        ListedFile(path, int(info["size"]))
        for path, info in sorted(found.items())
        if path.endswith(".parquet") and not PurePosixPath(path).name.startswith((".", "_"))
    ]


@contextmanager
def open_parquet(dataset: AnnotationDataset, path: str) -> Iterator[pq.ParquetFile]:
    """One annotation file, its schema checked. Raises DataError that names it and the mend."""
    where = dataset.locate(path)
    try:
        with dataset.fs.open(path, "rb") as stream, pq.ParquetFile(stream) as opened:
            check_schema(opened.schema_arrow, where)
            yield opened
    except (pa.ArrowException, OSError, ValueError) as error:
        brief = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")[:200]
        raise DataError(
            f"{where}: not a whole Parquet file ({brief})."
            " Delete it and run `sspsam annotate` again: it writes only what is missing."
        ) from error
