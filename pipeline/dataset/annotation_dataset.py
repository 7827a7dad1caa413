"""Open an annotation dataset: find its files, check their schema, query them with DuckDB.

    dataset = open_dataset("s3://bucket/output")
    with dataset.connect() as connection:
        connection.sql("SELECT phrase, count(*) FROM masks WHERE has_target GROUP BY ALL")

`images` has one row an image, `masks` one row a phrase of an image, `reviews` the newest verdict on
each image or phrase (`docs/schema.md` explains the columns). Nothing here writes to the dataset.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.core import url_to_fs

from pipeline.dataset.dataset_schema import (
    CURATED_SCHEMA,
    REVIEW_SCHEMA,
    VERDICTS,
    check_schema,
    leaf_columns,
)
from sspsam.errors import DataError
from sspsam.schema import ANNOTATION_SCHEMA

if TYPE_CHECKING:
    import duckdb
    from fsspec import AbstractFileSystem

#: More files than this are named to DuckDB by a pattern instead of one by one.
_NAMED_FILES = 10_000

#: Bytes up to which a remote file is fetched whole.
_ONE_REQUEST = 32 << 20


@dataclass(frozen=True)
class AnnotationFile:
    """One Parquet file of `annotations/`: `path` inside the file system, `rows` from its footer, bytes."""

    path: str
    rows: int
    size: int = 0

    @property
    def shard(self) -> str:
        """Name of the folder that it lies in, which is the shard's."""
        return PurePosixPath(self.path).parent.name


@dataclass(frozen=True)
class AnnotationDataset:
    """An OUTPUT folder. `url` is as given, `root` the same inside `fs`; `files` sorted by path."""

    url: str
    fs: AbstractFileSystem
    root: str
    files: tuple[AnnotationFile, ...]
    curated: bool
    storage_options: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def rows(self) -> int:
        """Images in the dataset, by the files' footers."""
        return sum(file.rows for file in self.files)

    @property
    def schema(self) -> pa.Schema:
        """CURATED_SCHEMA where `curate` wrote it, else ANNOTATION_SCHEMA."""
        return CURATED_SCHEMA if self.curated else ANNOTATION_SCHEMA

    def locate(self, path: str) -> str:
        """`path` inside the file system as people write it: plain if local, else with protocol."""
        return path if is_local(self.fs) else str(self.fs.unstrip_protocol(path))

    def connect(self, *, memory_limit: str = "2GB", threads: int | None = None) -> Any:
        """A DuckDB connection (closed by `with`) with the views `images`, `masks` and `reviews`.

        It may read files, so it is not for SQL of strangers: see `curate.predicate` for that.
        memory_limit: DuckDB's; what does not fit spills to a temporary folder.
        Other threads take `connection.cursor()`.
        """
        import duckdb

        config: dict[str, Any] = {"memory_limit": memory_limit, "python_enable_replacements": False}
        if threads is not None:
            config["threads"] = threads
        connection = duckdb.connect(config=config)
        if not is_local(self.fs):
            connection.register_filesystem(self.fs)
        self.create_views(connection)
        return connection

    def create_views(self, connection: duckdb.DuckDBPyConnection) -> None:
        """(Re)create the views `images`, `masks` and `reviews` on `connection`."""
        columns = [f'"{name}"' for name in self.schema.names]
        columns += [
            "coalesce(len(annotations), 0) AS phrase_count",
            "coalesce(len(list_filter(annotations, lambda a: a.has_target)), 0) AS mask_count",
        ]
        source = self._parquet_source()
        connection.execute(f"CREATE OR REPLACE VIEW images AS SELECT {', '.join(columns)} FROM {source}")
        of_image = [f'"{name}"' for name in self.schema.names if name not in ("annotations", "image")]
        of_mask = [f'a."{child.name}"' for child in self.schema.field("annotations").type.value_type]
        image_columns = ", ".join(of_image)
        connection.execute(
            f"CREATE OR REPLACE VIEW masks AS"
            f" SELECT {image_columns}, phrase_index, {', '.join(of_mask)} FROM"
            f" (SELECT {image_columns}, unnest(annotations) AS a,"
            f" generate_subscripts(annotations, 1) - 1 AS phrase_index FROM {source})"
        )
        self.refresh_reviews(connection)

    def refresh_reviews(self, connection: duckdb.DuckDBPyConnection) -> None:
        """Read the verdicts again into the table `reviews`, the newest of each only."""
        connection.register("_reviews", read_reviews(self))
        connection.execute("CREATE OR REPLACE TABLE reviews AS SELECT * FROM _reviews")
        connection.unregister("_reviews")

    def read_batches(
        self, file: AnnotationFile, columns: Sequence[str] | None = None, rows: int = 1024
    ) -> Iterator[pa.Table]:
        """The rows of one file, at most `rows` at a time, in `schema` (or its `columns`).

        Raises DataError, naming the file, if it cannot be read to its end.
        """
        schema = self.schema
        if columns is not None:
            schema = pa.schema([schema.field(name) for name in columns], schema.metadata)
        try:
            with self._open(file) as stream:
                parquet = pq.ParquetFile(stream)
                for batch in parquet.iter_batches(batch_size=rows, columns=schema.names):
                    table = pa.Table.from_batches([batch])
                    yield table.select(schema.names).cast(schema)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise DataError(_unreadable(self.locate(file.path), error)) from error

    def read_fields(
        self, file: AnnotationFile, fields: Sequence[str], columns: Sequence[str] = (), rows: int = 8192
    ) -> Iterator[pa.Table]:
        """`columns` and `annotations` with nothing but `fields`, without reading the rest of the file.

        Raises DataError, naming the file, if it cannot be read to its end.
        """
        try:
            with self._open(file) as stream:
                parquet = pq.ParquetFile(stream)
                paths = leaf_columns(parquet, fields, columns)
                for batch in parquet.iter_batches(batch_size=rows, columns=paths):
                    yield pa.Table.from_batches([batch])
        except (pa.ArrowException, OSError, ValueError) as error:
            raise DataError(_unreadable(self.locate(file.path), error)) from error

    def read_json(self, name: str) -> dict[str, Any] | None:
        """A manifest such as `_run.json`; None where there is none. Raises DataError if broken."""
        path = f"{self.root}/{name}"
        try:
            return dict(json.loads(self.fs.cat_file(path)))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except ValueError as error:
            raise DataError(
                f"{self.locate(path)}: not valid JSON ({error}). Delete it or restore it."
            ) from error

    def _open(self, file: AnnotationFile) -> Any:
        """A stream of the file; a small remote one comes in one request."""
        if is_local(self.fs) or file.size > _ONE_REQUEST:
            return self.fs.open(file.path, "rb")
        return io.BytesIO(self.fs.cat_file(file.path))

    def _parquet_source(self) -> str:
        names = [file.path for file in self.files]
        if not is_local(self.fs):
            names = [str(self.fs.unstrip_protocol(name)) for name in names]
        if len(names) > _NAMED_FILES and not set("*?[]{}") & set(self.root):
            prefix = self.root if is_local(self.fs) else self.fs.unstrip_protocol(self.root)
            names = [f"{prefix}/annotations/**/*.parquet"]
        quoted = ", ".join("'" + name.replace("'", "''") + "'" for name in names)
        return f"read_parquet([{quoted}], union_by_name = false, hive_partitioning = false)"


def open_dataset(
    output: str, *, storage_options: Mapping[str, Any] | None = None, workers: int = 32
) -> AnnotationDataset:
    """Open the folder that `annotate`, `curate` or `import` wrote, local or any fsspec URL.

    Reads the footer of every file (`workers` at a time) and checks its schema. Raises DataError
    that names the file and the mend: no such folder, a file cut short or of another schema, a
    mixture of curated and other files, a `curate` or `import` that did not finish.
    """
    options = dict(storage_options or {})
    fs, root = url_to_fs(str(output), **options)
    root = root.rstrip("/")
    opened = AnnotationDataset(str(output), fs, root, (), False, options)
    _refuse_unfinished(opened)
    paths = _annotation_paths(fs, root, str(output))
    with ThreadPoolExecutor(max_workers=max(1, min(workers, len(paths)))) as pool:
        found = list(pool.map(partial(_read_footer, opened), paths))
    kinds = {curated for _, curated in found}
    if len(kinds) > 1:
        first = {curated: file.path for file, curated in reversed(found)}
        raise DataError(
            f"{output}: {opened.locate(first[True])} was written by `sspsam curate`,"
            f" {opened.locate(first[False])} was not. Keep the two in separate folders."
        )
    return AnnotationDataset(str(output), fs, root, tuple(file for file, _ in found), kinds.pop(), options)


def read_reviews(dataset: AnnotationDataset) -> pa.Table:
    """The newest verdict on each (key, shard, phrase), in REVIEW_SCHEMA, sorted by those.

    An empty table where nobody reviewed. Raises DataError naming a file that is not of the schema.
    """
    folder = f"{dataset.root}/reviews"
    paths = sorted(_parquet_under(dataset.fs, folder))
    tables = [REVIEW_SCHEMA.empty_table()]
    for path in paths:
        try:
            table = pq.read_table(dataset.fs.open(path, "rb"))
            tables.append(table.select(REVIEW_SCHEMA.names).cast(REVIEW_SCHEMA))
        except (pa.ArrowException, OSError, ValueError, KeyError) as error:
            raise DataError(
                f"{dataset.locate(path)}: not a file of verdicts ({_brief(error)});"
                f" it needs the columns {', '.join(REVIEW_SCHEMA.names)}. Move it out of reviews/."
            ) from error
        unknown = set(tables[-1]["verdict"].to_pylist()) - {*VERDICTS, "none"}
        if unknown:
            raise DataError(
                f"{dataset.locate(path)}: verdict {unknown.pop()!r} is none of {', '.join(VERDICTS)}, none"
            )
    everything = pa.concat_tables(tables)
    newest: dict[tuple[str, str, str | None], int] = {}
    places = zip(*(everything[name].to_pylist() for name in ("key", "shard", "phrase")), strict=True)
    times = everything["reviewed_at"].cast(pa.int64()).to_numpy()
    for row, place in enumerate(places):
        if place not in newest or times[row] >= times[newest[place]]:
            newest[place] = row
    kept = everything.take(pa.array(sorted(newest.values()), pa.int64()))
    return kept.sort_by([("shard", "ascending"), ("key", "ascending"), ("phrase", "ascending")])


def is_local(fs: AbstractFileSystem) -> bool:
    """Whether paths of `fs` are paths of this machine."""
    protocol = fs.protocol if isinstance(fs.protocol, str) else fs.protocol[0]
    return protocol in ("file", "local")


def _annotation_paths(fs: AbstractFileSystem, root: str, given: str) -> list[str]:
    paths = sorted(_parquet_under(fs, f"{root}/annotations"))
    if paths:
        return paths
    if given.endswith(".parquet"):
        raise DataError(f"{given}: is one file; give the folder above its annotations/ folder.")
    if not fs.exists(root):
        raise DataError(f"{given}: no such folder. Is it what `sspsam annotate --output` was given?")
    if PurePosixPath(root).name == "annotations" and _parquet_under(fs, root):
        raise DataError(f"{given}: give the folder above, {given.rstrip('/')[: -len('annotations')]}")
    raise DataError(
        f"{given}: no Parquet file under {given.rstrip('/')}/annotations, so nothing is annotated"
        " yet. Is it the folder that `sspsam annotate --output` was given?"
    )


def _parquet_under(fs: AbstractFileSystem, folder: str) -> list[str]:
    """Parquet files below `folder`; names that start with '.' or '_' are unfinished or private."""
    fs.invalidate_cache(folder)
    try:
        names: Iterable[str] = fs.find(folder)
    except FileNotFoundError:
        return []
    return [
        name
        for name in names
        if name.endswith(".parquet") and not PurePosixPath(name).name.startswith((".", "_"))
    ]


def _refuse_unfinished(dataset: AnnotationDataset) -> None:
    for name, command in (("_curation.json", "curate"), ("_import.json", "import")):
        manifest = dataset.read_json(name)
        if manifest is not None and not manifest.get("complete", False):
            raise DataError(
                f"{dataset.url}: `sspsam {command}` did not finish writing it. Run it again with --overwrite."
            )


def _read_footer(dataset: AnnotationDataset, path: str) -> tuple[AnnotationFile, bool]:
    where = dataset.locate(path)
    try:
        with dataset.fs.open(path, "rb") as stream:
            parquet = pq.ParquetFile(stream)
            schema, rows = parquet.schema_arrow, parquet.metadata.num_rows
            size = stream.seek(0, io.SEEK_END)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(_unreadable(where, error)) from error
    return AnnotationFile(path, rows, size), check_schema(schema, where)


def _unreadable(where: str, error: Exception) -> str:
    return (
        f"{where}: not a whole Parquet file ({_brief(error)})."
        " Delete it and run `sspsam annotate` again: it writes only what is missing."
    )


def _brief(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].rstrip(".")[:200]
