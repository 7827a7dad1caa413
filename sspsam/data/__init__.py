"""The field's benchmarks, and our own annotation Parquet, read as one record type."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from math import prod
from typing import Any

from sspsam.data.annotations import read_annotations
from sspsam.data.authors_annotations import read_authors
from sspsam.data.benchmark_files import listing, parent
from sspsam.data.data_config import DataConfig
from sspsam.data.generated_scenes import read_scenes
from sspsam.data.phrasecut import read_phrasecut
from sspsam.data.records import ImageRef, Record, Segmentation, group_by_image
from sspsam.data.refer import read_grefcoco, read_refer
from sspsam.errors import ConfigError, DataError, SSPSAMError, one_line
from sspsam.rle import MOST_PIXELS
from sspsam.storage.local_paths import absolute

#: format -> reader. `--format` of evaluate and train takes these names.
FORMATS: dict[str, Callable[[DataConfig], Iterator[Record]]] = {
    "refer": read_refer,
    "grefcoco": read_grefcoco,
    "phrasecut": read_phrasecut,
    "authors": read_authors,
    "annotations": read_annotations,
    "scenes": read_scenes,
}


def read_records(config: DataConfig) -> Iterator[Record]:
    """The records of a benchmark in the order of its files, `config.limit` of them at most.

    Raises:
        DataError: a file is missing (the message names the download page), damaged or not in its
            format; there is no such split, or nothing in it.
    """
    images = None if config.images is None else absolute(config.images)
    dataset = config.dataset if config.format == "scenes" else absolute(config.dataset)
    records = _checked(config, FORMATS[config.format](replace(config, dataset=dataset, images=images)))
    first = next(records, None)
    if first is None:
        raise DataError(f"{config.dataset} has no records in split {config.split}")
    yield from itertools.islice(itertools.chain([first], records), config.limit)


def _checked(config: DataConfig, records: Iterator[Record]) -> Iterator[Record]:
    """The records; what a reader meets that its format does not have is an error of the data."""
    try:
        for record in records:
            sides = [side for side in (record.height, record.width) if side is not None]
            if not all(isinstance(side, int) and side > 0 for side in sides) or prod(sides) > MOST_PIXELS:
                raise DataError(
                    f"{config.dataset}: the image of record {record.key} cannot have the size "
                    f"{record.width} x {record.height}: mend it or take the record out"
                )
            yield record
    except SSPSAMError:
        raise
    except (
        LookupError,
        TypeError,
        ValueError,
        AttributeError,
        ArithmeticError,
        OSError,
        RuntimeError,
    ) as error:
        raise DataError(
            f"{config.dataset} is damaged or not of the format {config.format}: "
            f"{type(error).__name__}: {one_line(error)}"
        ) from error


def find_format(dataset: str, storage_options: dict[str, Any] | None = None) -> str:
    """The format of a benchmark by the names of its files.

    Raises:
        ConfigError: they are not those of one format; says what each looks like.
    """
    if dataset.endswith(".json") and listing(parent(dataset), storage_options):
        return "authors"
    names = listing(dataset, storage_options)
    if not names and dataset.split(":", maxsplit=1)[0] == "scenes":
        return "scenes"
    signs = {
        "refer": any(name.startswith("refs(") for name in names),
        "grefcoco": any(name.startswith("grefs(") for name in names),
        "phrasecut": any(name.startswith("refer_") and name.endswith(".json") for name in names),
        "annotations": "annotations" in names,
    }
    found = [form for form, holds in signs.items() if holds]
    if len(found) != 1:
        raise ConfigError(
            f"--format: {dataset} looks like {' and '.join(found) or 'no format that is known'}. "
            "refer has refs(*).p, grefcoco grefs(*).json, phrasecut refer_*.json, annotations a "
            "folder annotations/, authors is a JSON file: choose one"
        )
    return found[0]


__all__ = [
    "FORMATS",
    "DataConfig",
    "ImageRef",
    "Record",
    "Segmentation",
    "find_format",
    "group_by_image",
    "read_records",
]
