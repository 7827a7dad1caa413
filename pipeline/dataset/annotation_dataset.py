"""An annotation dataset that is open: its files, their schema, queries with DuckDB.

    dataset = open_dataset("s3://bucket/output")  # pipeline.dataset.opening
    with dataset.connect() as connection:
        connection.sql("SELECT phrase, count(*) FROM masks WHERE has_target GROUP BY ALL")

`images` has one row an image, `masks` one row a phrase of an image, `reviews` the newest verdict on
each image or phrase (`docs/schema.md` explains the columns). Nothing here writes to the dataset.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.dataset.dataset_schema import (
    REVIEW_SCHEMA,
    VERDICTS,
    added_signals,
    check_schema,
    leaf_columns,
    schema_of,
)
from pipeline.sources.storage import full_url, is_local
from sspsam.errors import DataError
from sspsam.images.image_places import ImagePlaces, mapping
from sspsam.schema import SIGNALS

if TYPE_CHECKING:
    import duckdb
    from fsspec import AbstractFileSystem

#: More files than this are named to DuckDB by a pattern instead of one by one.
_NAMED_FILES = 10_000

#: Bytes up to which a remote file is fetched whole.
_ONE_REQUEST = 32 << 20


@dataclass(frozen=True)
class AnnotationFile:
    """One Parquet file of `annotations/`: `path` inside the file system, bytes, and rows by its footer."""

    path: str
    size: int
    rows: int = 0


@dataclass(frozen=True)
class AnnotationDataset:
    """An OUTPUT folder. `url` is as given, `root` the same inside `fs`; `files` sorted by path.

    Nothing is known of the `files` of a dataset that was opened with `tolerant`: there are none.
    """

    url: str
    fs: AbstractFileSystem
    root: str
    files: tuple[AnnotationFile, ...]
    curated: bool
    storage_options: Mapping[str, Any] = field(default_factory=dict, repr=False)
    added: tuple[str, ...] = ()
    image_roots: tuple[str, ...] = ()

    @cached_property
    def image_places(self) -> ImagePlaces:
        """Where this dataset's images may be read from: below itself, the input that its manifest
        records, and `image_roots` (`--image-root`)."""
        return ImagePlaces.of_dataset(self.url, self.read_json, self.image_roots)

    @property
    def rows(self) -> int:
        """Images in the dataset, by the files' footers."""
        return sum(file.rows for file in self.files)

    @property
    def schema(self) -> pa.Schema:
        """ANNOTATION_SCHEMA, with what other commands added."""
        return schema_of(self.curated, self.added)

    def locate(self, path: str) -> str:
        """`path` inside the file system as people write it: plain if local, else with protocol."""
        return full_url(self.fs, path)

    def signals(self) -> tuple[str, ...]:
        """SIGNALS, and those of ADDED_SIGNALS that the first readable file has, also of a growing dataset."""
        for file in self.files or self.list_shown():
            try:
                with self.open_file(file) as opened:
                    return (*SIGNALS, *added_signals(opened.schema_arrow))
            except DataError:
                continue  # who reads all of it says so
        return SIGNALS

    def shard_of(self, file: AnnotationFile) -> str:
        """The folder below `annotations` that a file lies in, which is named after its shard."""
        return str(PurePosixPath(file.path).parent.relative_to(f"{self.root}/annotations"))

    def list_files(self, folder: str = "annotations") -> list[AnnotationFile]:
        """The Parquet files below `folder` as they are now, by path; not those that begin with '.' or '_'."""
        below = f"{self.root}/{folder}".rstrip("/")
        self.fs.invalidate_cache(below)
        try:
            found = self.fs.find(below, detail=True)
        except FileNotFoundError:
            return []
        return [
            AnnotationFile(path, int(info.get("size") or 0))
            for path, info in sorted(found.items())
            if path.endswith(".parquet") and not PurePosixPath(path).name.startswith((".", "_"))
        ]

    def list_shown(self) -> list[AnnotationFile]:
        """The files of `annotations/`, and chunks that wait for their shard's end; no row is in two of them.

        Which file holds what while `annotate` writes stands in `pipeline/annotate/shard_files.py`.
        """
        # Chunks first: a shard that is sealed between the two listings then shows as sealed.
        waiting, sealed = self.list_files("_chunks"), self.list_files()
        names = {PurePosixPath(file.path).parts[-2:] for file in sealed}  # shard, name
        whole = {shard for shard, name in names if name.startswith("part-")}
        places = ((file, PurePosixPath(file.path).parts[-2:]) for file in waiting)
        shown = [file for file, place in places if place[0] not in whole and place not in names]
        return shown + sealed

    def connect(self, *, memory_limit: str = "2GB", threads: int | None = None) -> Any:
        """A DuckDB connection (closed by `with`) with the views `images`, `masks` and `reviews`.

        It may read files, so it is not for untrusted SQL: see `curate.predicate` for that.
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
        source = self.parquet_source(self.files)
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
        connection.register("_reviews", read_reviews(self))
        connection.execute("CREATE OR REPLACE TABLE reviews AS SELECT * FROM _reviews")
        connection.unregister("_reviews")

    def read_batches(
        self, file: AnnotationFile, columns: Sequence[str] | None = None, rows: int = 1024
    ) -> Iterator[pa.Table]:
        """The rows of one file, at most `rows` at a time, in `schema` (or its `columns`).

        Raises DataError, naming the file, if it cannot be read to its end.
        """
        names = self.schema.names if columns is None else columns
        schema = pa.schema([self.schema.field(name) for name in names], self.schema.metadata)
        with self.open_file(file, whole=True) as opened:
            for batch in opened.iter_batches(batch_size=rows, columns=schema.names):
                yield pa.Table.from_batches([batch]).select(schema.names).cast(schema)

    def read_fields(
        self, file: AnnotationFile, fields: Sequence[str], columns: Sequence[str] = (), rows: int = 8192
    ) -> Iterator[pa.Table]:
        """`columns` and `annotations` with nothing but `fields`, without reading the rest of the file.

        Raises DataError, naming the file, if it cannot be read to its end.
        """
        with self.open_file(file, whole=True) as opened:
            for batch in opened.iter_batches(batch_size=rows, columns=leaf_columns(opened, fields, columns)):
                yield pa.Table.from_batches([batch])

    @contextmanager
    def open_file(self, file: AnnotationFile, *, whole: bool = False) -> Iterator[pq.ParquetFile]:
        """An annotation file, its schema checked. Raises DataError that names it and the mend.

        whole: all of it will be read, so a small remote one is fetched in one request.
        """
        where = self.locate(file.path)
        try:
            if whole and not is_local(self.fs) and file.size <= _ONE_REQUEST:
                stream: Any = io.BytesIO(self.fs.cat_file(file.path))
            else:
                stream = self.fs.open(file.path, "rb")
            with stream, pq.ParquetFile(stream) as opened:
                check_schema(opened.schema_arrow, where)
                yield opened
        except FileNotFoundError as error:
            raise DataError(
                f"{where}: is gone (sealed with its shard, or deleted): load the page again"
            ) from error
        except (pa.ArrowException, OSError, ValueError) as error:
            raise DataError(
                f"{where}: not a whole Parquet file ({_brief(error)})."
                " Delete it and run `sspsam annotate` again: it writes only what is missing."
            ) from error

    def run(self) -> dict[str, Any]:
        """`_run.json`, or that of the dataset that another command read; empty if there is none."""
        names = ("_curation.json", "_agreement.json", "_calibration.json")
        made = next(filter(None, map(self.read_json, names)), {})
        return mapping(self.read_json("_run.json") or made.get("run"))

    def model(self) -> dict[str, Any]:
        """`model` of `run()`; empty where no manifest says it. Raises DataError if one is broken."""
        found = self.run().get("model") or {}
        return found if isinstance(found, dict) else {"name": found}

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

    def parquet_source(self, files: Sequence[AnnotationFile]) -> str:
        """The files as a table function of DuckDB."""
        names = [self.locate(file.path) for file in files]
        if len(names) > _NAMED_FILES and len(names) == len(self.files) and not set("*?[]{}") & set(self.root):
            names = [f"{self.locate(self.root)}/annotations/**/*.parquet"]
        quoted = ", ".join("'" + name.replace("'", "''") + "'" for name in names)
        return f"read_parquet([{quoted}], union_by_name = false, hive_partitioning = false)"


def read_every_review(dataset: AnnotationDataset) -> pa.Table:
    """Every verdict ever given, in REVIEW_SCHEMA. Raises DataError naming a file that is not of it."""
    tables = [REVIEW_SCHEMA.empty_table()]
    for path in (file.path for file in dataset.list_files("reviews")):
        try:
            table = pq.read_table(dataset.fs.open(path, "rb"))
            for name in ("reviewer", "seconds"):  # not in files of earlier versions
                if name not in table.schema.names:
                    table = table.append_column(name, pa.nulls(len(table), REVIEW_SCHEMA.field(name).type))
            tables.append(table.select(REVIEW_SCHEMA.names).cast(REVIEW_SCHEMA))
        except (pa.ArrowException, OSError, ValueError, KeyError) as error:
            raise DataError(
                f"{dataset.locate(path)}: not a file of verdicts ({_brief(error)});"
                f" it needs the columns {', '.join(REVIEW_SCHEMA.names[:6])}. Move it out of reviews/."
            ) from error
        unknown = set(tables[-1]["verdict"].to_pylist()) - {*VERDICTS, "none"}
        if unknown:
            raise DataError(
                f"{dataset.locate(path)}: verdict {unknown.pop()!r} is none of {', '.join(VERDICTS)}, none"
            )
    return pa.concat_tables(tables)


def read_reviews(dataset: AnnotationDataset) -> pa.Table:
    """The newest verdict on each (key, shard, phrase), in REVIEW_SCHEMA, sorted by those.

    An empty table where nobody reviewed. Raises DataError naming a file that is not of the schema.
    """
    everything = read_every_review(dataset)
    newest: dict[tuple[str, str, str | None], int] = {}
    places = zip(*(everything[name].to_pylist() for name in ("key", "shard", "phrase")), strict=True)
    times = everything["reviewed_at"].cast(pa.int64()).to_numpy()
    for row, place in enumerate(places):
        if place not in newest or times[row] >= times[newest[place]]:
            newest[place] = row
    kept = everything.take(pa.array(sorted(newest.values()), pa.int64()))
    return kept.sort_by([("shard", "ascending"), ("key", "ascending"), ("phrase", "ascending")])


def _brief(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return text.splitlines()[0].rstrip(".")[:200]
