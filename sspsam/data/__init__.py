"""The field's benchmarks, and our own annotation Parquet, read as one record type."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator

from sspsam.data.annotations import read_annotations
from sspsam.data.authors import read_authors
from sspsam.data.config import DataConfig
from sspsam.data.phrasecut import read_phrasecut
from sspsam.data.records import ImageRef, Record, Segmentation, group_by_image
from sspsam.data.refer import read_grefcoco, read_refer
from sspsam.errors import DataError

#: format -> reader. `--format` of evaluate and train takes these names.
FORMATS: dict[str, Callable[[DataConfig], Iterator[Record]]] = {
    "refer": read_refer,
    "grefcoco": read_grefcoco,
    "phrasecut": read_phrasecut,
    "authors": read_authors,
    "annotations": read_annotations,
}


def read_records(config: DataConfig) -> Iterator[Record]:
    """The records of a benchmark in the order of its files, `config.limit` of them at most.

    Raises:
        DataError: a file is missing (the message says where it can be had), damaged or not in its
            format; there is no such split, or nothing in it.
    """
    records = FORMATS[config.format](config)
    first = next(records, None)
    if first is None:
        raise DataError(f"{config.dataset} has no records in split {config.split}")
    yield from itertools.islice(itertools.chain([first], records), config.limit)


__all__ = [
    "FORMATS",
    "DataConfig",
    "ImageRef",
    "Record",
    "Segmentation",
    "group_by_image",
    "read_records",
]
