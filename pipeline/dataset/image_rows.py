"""Whole rows (caption, phrases, RLE) of the few images on a page, straight from the Parquet files."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pipeline.dataset.annotation_dataset import AnnotationFile
from pipeline.dataset.phrase_index import Index
from sspsam.errors import DataError
from sspsam.schema import ANNOTATION_TYPE

#: Columns that a page does not need: hashes, and embedded images of megabytes.
_NOT_FOR_PAGES = ("phash", "image")


class Rows:
    """Reads rows by image id; several files at a time."""

    def __init__(self, index: Index, *, threads: int = 8) -> None:
        self._index = index
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="rows")

    def read(self, images: Sequence[int], columns: Sequence[str] | None = None) -> list[dict[str, Any]]:
        """The rows of image ids, in that order, as dicts of the schema's columns plus `id`.

        columns: top-level columns; default all but the embedded image.
        Raises DataError for an id that does not exist, or a file that has become unreadable.
        """
        if not images:
            return []
        places: dict[AnnotationFile, list[tuple[int, int]]] = defaultdict(list)
        for image, path, size, row in self._index.query(
            'select i.id, f.path, f.size, i."row" from images i join files f using (file_id) '
            f"where i.id in ({','.join(str(int(image)) for image in images)})"
        ):
            places[AnnotationFile(path, size)].append((image, row))
        found: dict[int, dict[str, Any]] = {}
        jobs = [(file, wanted, columns) for file, wanted in places.items()]
        for part in self._pool.map(lambda job: self._read_file(*job), jobs):
            found.update(part)
        missing = [image for image in images if image not in found]
        if missing:
            raise DataError(f"no image has the id {missing[0]}: load the page again")
        return [found[image] for image in images]

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)

    def _read_file(
        self, file: AnnotationFile, wanted: list[tuple[int, int]], columns: Sequence[str] | None
    ) -> dict[int, dict[str, Any]]:
        with self._index.dataset.open_file(file) as opened:
            names = columns or [name for name in opened.schema_arrow.names if name not in _NOT_FOR_PAGES]
            found = {}
            first = 0
            for group in range(opened.num_row_groups):
                count = opened.metadata.row_group(group).num_rows
                inside = [(image, row - first) for image, row in wanted if first <= row < first + count]
                if inside:
                    table = opened.read_row_group(group, columns=list(names))
                    for image, row in inside:
                        found[image] = {"id": image, **table.slice(row, 1).to_pylist()[0]}
                        annotations = found[image].get("annotations") or []
                        for at, one in enumerate(annotations):  # what is null is as in the index
                            whole = one or dict.fromkeys(ANNOTATION_TYPE.names)
                            annotations[at] = {**whole, "phrase": whole["phrase"] or ""}
                first += count
        return found


def card(row: dict[str, Any], verdicts: dict[str | None, dict[str, Any]]) -> dict[str, Any]:
    """A row as JSON for the page: numbers that JSON lacks become null, verdicts are added."""
    annotations = []
    for annotation in row["annotations"] or []:
        rle = annotation["segmentation"] or {}
        shown = {name: _finite(value) for name, value in annotation.items()}
        del shown["segmentation"]
        shown["size"], shown["counts"] = rle.get("size"), rle.get("counts")
        shown["review"] = verdicts.get(annotation["phrase"])
        annotations.append(shown)
    names = ("id", "shard", "key", "index", "status", "error", "width", "height", "caption")
    extra = {"split": row["split"]} if "split" in row else {}
    return {
        **{name: row[name] for name in names},
        **extra,
        "annotations": annotations,
        "review": verdicts.get(None),
    }


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return value
