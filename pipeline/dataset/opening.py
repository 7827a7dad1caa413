"""Open an annotation dataset: find its files and check that they are whole and of one kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Any

from pipeline.dataset.annotation_dataset import AnnotationDataset, AnnotationFile
from pipeline.dataset.dataset_schema import WRITERS, added_signals
from pipeline.sources.storage import filesystem
from sspsam.errors import DataError
from sspsam.schema import ADDED_SIGNALS


def open_dataset(
    output: str,
    *,
    storage_options: Mapping[str, Any] | None = None,
    image_roots: Sequence[str] = (),
    workers: int = 32,
    tolerant: bool = False,
) -> AnnotationDataset:
    """Open the folder that `annotate`, `curate` or `import` wrote, local or any fsspec URL.

    Reads the footer of every file (`workers` at a time) and checks its schema. Raises DataError
    that names the file and the mend: no such folder, a file cut short or of another schema, a
    mixture of curated and other files, a `curate` or `import` that did not finish.

    tolerant: open no file, for readers that leave out a bad one; the only error is that there are no files.
    """
    options = dict(storage_options or {})
    fs, root = filesystem(str(output), options)
    dataset = AnnotationDataset(
        str(output), fs, root.rstrip("/"), (), False, options, image_roots=tuple(image_roots)
    )
    if tolerant and dataset.list_shown():
        return dataset
    listed = dataset.list_files()
    _refuse_unfinished(dataset)
    if not listed:
        raise DataError(_advice(dataset))

    def footer(file: AnnotationFile) -> tuple[AnnotationFile, frozenset[str]]:
        with dataset.open_file(file) as opened:
            schema = opened.schema_arrow
            kind = frozenset(added_signals(schema)) | {"split"}.intersection(schema.names)
            return replace(file, rows=opened.metadata.num_rows), kind

    with ThreadPoolExecutor(min(workers, len(listed))) as pool:
        found = list(pool.map(footer, listed))
    for name, command in WRITERS.items():
        first = {name in kind: dataset.locate(file.path) for file, kind in reversed(found)}
        if len(first) > 1:
            raise DataError(
                f"{output}: {first[True]} was written by `sspsam {command}`, {first[False]} was not."
                " Keep the two in separate folders."
            )
    kind = found[0][1]
    added = tuple(signal for signal in ADDED_SIGNALS if signal in kind)
    return replace(dataset, files=tuple(file for file, _ in found), curated="split" in kind, added=added)


def _advice(dataset: AnnotationDataset) -> str:
    """What to do about a dataset without annotation files."""
    given = dataset.url
    if given.endswith(".parquet"):
        return f"{given}: is one file; give the folder above its annotations/ folder."
    if not dataset.fs.exists(dataset.root):
        return f"{given}: no such folder. Is it the OUTPUT of `sspsam annotate`?"
    if PurePosixPath(dataset.root).name == "annotations" and dataset.list_files(""):
        return f"{given}: give the folder above, {given.rstrip('/')[: -len('annotations')]}"
    if waiting := dataset.list_files("_chunks"):
        return (
            f"{given}: no shard is finished yet; {len(waiting)} chunks are there (`sspsam view` shows them)."
            " Wait, or run the same `sspsam annotate` again if it was ended."
        )
    return (
        f"{given}: no Parquet file under {given.rstrip('/')}/annotations, so nothing is annotated"
        " yet. Is it the OUTPUT of `sspsam annotate`?"
    )


def _refuse_unfinished(dataset: AnnotationDataset) -> None:
    commands = {
        "_curation": "curate",
        "_import": "import",
        "_agreement": "agree",
        "_calibration": "calibrate",
    }
    for name, command in commands.items():
        manifest = dataset.read_json(f"{name}.json")
        if manifest is not None and not manifest.get("complete", False):
            raise DataError(
                f"{dataset.url}: `sspsam {command}` did not finish writing it. Run it again with --overwrite."
            )
