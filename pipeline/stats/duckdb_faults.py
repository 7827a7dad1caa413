"""DuckDB's errors as DataError with the name of the damaged file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import duckdb

from pipeline.dataset.annotation_dataset import AnnotationDataset
from sspsam.errors import DataError


@contextmanager
def named_faults(*datasets: AnnotationDataset) -> Iterator[None]:
    """DuckDB's errors inside as DataError. The datasets are read once more to find the file at fault."""
    try:
        yield
    except duckdb.Error as error:
        for dataset in datasets:
            for file in dataset.files:
                for _ in dataset.read_batches(file):
                    pass
        reason = str(error).strip().splitlines()[0]
        urls = " and ".join(dataset.url for dataset in datasets)
        raise DataError(
            f"{urls}: DuckDB could not go on ({reason}). Out of memory? Raise --memory-mb."
        ) from error
