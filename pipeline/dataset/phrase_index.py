"""The small columns of a whole dataset in DuckDB, so that any filter answers at once.

Only these leaf columns are read from Parquet; captions, RLE and embedded images stay where they
are. Files are immutable (the annotate job writes each once), so each is read once, and a dataset
that still grows is followed by listing it again.

Tables:
    files(file_id, path, size)
    images(id, file_id, row, shard, key, idx, status, error_kind, error_message, width, height,
           masks, split)                     id rises with (shard, file, row)
    masks(image_id, position, phrase_id, has_target, truncated, target_pixels, area, area_fraction,
          <SIGNALS>, <ADDED_SIGNALS>)          the latter null where the dataset has none
    phrases(phrase_id, phrase, folded)       each distinct phrase once; folded: see `fold`
"""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.dataset.annotation_dataset import AnnotationDataset, AnnotationFile
from pipeline.dataset.dataset_schema import leaf_columns
from sspsam.errors import ConfigError, SSPSAMError
from sspsam.schema import ADDED_SIGNALS, ANNOTATION_SCHEMA, SIGNALS

#: Images read before they are inserted together.
BATCH_IMAGES = 50_000

_SIGNALS = (*SIGNALS, *ADDED_SIGNALS)

_TABLES = f"""
create table if not exists files (file_id integer, path varchar, size bigint);
create table if not exists images (
    id bigint, file_id integer, "row" integer, shard varchar, "key" varchar, idx bigint,
    status varchar, error_kind varchar, error_message varchar, width integer, height integer,
    masks integer, split varchar);
create table if not exists masks (
    image_id bigint, position integer, phrase_id integer, has_target boolean,
    truncated boolean, area bigint, area_fraction float, target_pixels integer,
    {", ".join(f"{name} float" for name in _SIGNALS)});
create table if not exists phrases (phrase_id integer, phrase varchar, folded varchar);
"""

_IMAGE_COLUMNS = ("key", "shard", "index", "status", "error", "width", "height", "split")
_MASK_FIELDS = ("phrase", "has_target", "truncated", "area", "target_pixels", *_SIGNALS)


#: Settings of a DuckDB that reaches no file but its own, no network and no variable of this process.
NOTHING_OUTSIDE: dict[str, Any] = {
    "enable_external_access": False,
    "python_enable_replacements": False,
    "autoload_known_extensions": False,
    "autoinstall_known_extensions": False,
}


def fold(expression: str) -> str:
    """SQL that folds case and accents of the SQL string `expression`, for searching."""
    return f"lower(strip_accents({expression}))"


_Batch = list[tuple[AnnotationFile, pa.Table]]


@dataclass(frozen=True)
class Progress:
    """Where the index stands. problems: (path, message) of each file that could not be used."""

    files: int
    files_total: int
    images: int
    complete: bool
    problems: tuple[tuple[str, str], ...]


class Index:
    """Holds the DuckDB database. Queries run on cursors of their own, from any thread."""

    def __init__(
        self,
        dataset: AnnotationDataset,
        *,
        path: str | None = None,
        memory_mb: int = 2048,
        threads: int = 8,
    ) -> None:
        """path: database file to keep and reuse; default a temporary one, gone with `close`.

        Raises ConfigError if the file cannot be used.
        """
        self.dataset = dataset
        self._folder = None if path else tempfile.mkdtemp(prefix="sspsam-view-")
        database = path or str(Path(str(self._folder)) / "index.duckdb")
        try:
            # What people search for is only ever a parameter; should it not be, there is nothing to reach.
            config: dict[str, Any] = {"memory_limit": f"{memory_mb}MB", **NOTHING_OUTSIDE}
            self._connection = duckdb.connect(database, config=config)
            self._connection.execute(_TABLES)
            try:
                newest = ", ".join(("split", "target_pixels", *_SIGNALS))
                self._connection.execute(f"select {newest} from images, masks limit 0")
            except duckdb.BinderException:  # a file of an earlier version: the dataset is read again
                for table in ("files", "images", "masks", "phrases"):
                    self._connection.execute(f"drop table {table}")
                self._connection.execute(_TABLES)
        except duckdb.Error as error:
            raise ConfigError(
                f"--index {database}: cannot be opened ({str(error).splitlines()[0]});"
                " is another viewer using it? Name another file."
            ) from error
        self._threads = threads
        self._filling = threading.Lock()
        self._problems: dict[str, str] = {}
        self._files_total = 0
        self._complete = False
        self._first_id = 0

    def query(self, sql: str, parameters: Any = None) -> list[tuple[Any, ...]]:
        """Rows of one SELECT, on a cursor of its own."""
        with self.cursor() as cursor:
            return cursor.execute(sql, parameters or []).fetchall()

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """A connection of its own to the same tables, for one thread; closed by `with`."""
        return self._connection.cursor()

    def masks_an_image(self) -> list[tuple[int, int]]:
        """(masks with a target, images) of the images that are ok."""
        return self.query(
            "select n, count(*) from (select i.id, count(m.image_id) filter (m.has_target) as n"
            " from images i left join masks m on m.image_id = i.id where i.status = 'ok' group by 1)"
            " group by 1 order by 1"
        )

    def progress(self) -> Progress:
        ((files, images),) = self.query("select (select count(*) from files), (select count(*) from images)")
        problems = tuple(sorted(self._problems.items()))
        return Progress(files, self._files_total, images, self._complete, problems)

    def refresh(self) -> None:
        """Read the files that are not in the tables yet; a bad file becomes a problem.

        Safe to call from several threads: the second waits, then finds nothing to do.
        """
        with self._filling:
            self._complete = False
            known = dict(self.query("select path, size from files"))
            listed = list(self.dataset.files) or self.dataset.list_shown()
            self._files_total = len(listed)
            sizes = {file.path: file.size for file in listed}
            # Sealing removes the chunk files of a shard, a retry writes a part again.
            if stale := [path for path, size in known.items() if sizes.get(path) != size]:
                self._drop(stale)
                known = {path: size for path, size in known.items() if path not in stale}
            self._problems = {}
            fresh = [file for file in listed if file.path not in known]
            for batch in self._read_batches(fresh):
                self._insert(batch)
            self._complete = True

    def close(self) -> None:
        self._connection.close()
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _drop(self, paths: list[str]) -> None:
        """Forget files and their images."""
        # Ids are never used again: pictures are remembered by them.
        self._first_id = max(self._first_id, self.query("select coalesce(max(id) + 1, 0) from images")[0][0])
        with self.cursor() as cursor:
            cursor.execute("begin")
            cursor.execute("create or replace temp table stale as select unnest(?) as path", [paths])
            files = "(select file_id from files where path in (select path from stale))"
            images = f"(select id from images where file_id in {files})"
            cursor.execute(f"delete from masks where image_id in {images}")
            cursor.execute(f"delete from images where file_id in {files}")
            cursor.execute("delete from files where path in (select path from stale)")
            cursor.execute("commit")

    def _read_batches(self, files: list[AnnotationFile]) -> Iterator[_Batch]:
        """Groups of (file, table of the small columns), in order, some BATCH_IMAGES images each."""
        batch: _Batch = []
        images = 0
        with ThreadPoolExecutor(self._threads) as pool:
            window = self._threads * 4
            for start in range(0, len(files), window):
                part = files[start : start + window]
                for file, table in zip(part, pool.map(self._read_file, part), strict=True):
                    if isinstance(table, str):
                        self._problems = {**self._problems, file.path: table}
                        continue
                    batch.append((file, table))
                    images += table.num_rows
                    if images >= BATCH_IMAGES:
                        yield batch
                        batch, images = [], 0
        if batch:
            yield batch

    def _read_file(self, file: AnnotationFile) -> pa.Table | str:
        """The file's small columns, or what is wrong with it."""
        try:
            with self.dataset.open_file(file) as opened:
                table = opened.read(columns=leaf_columns(opened, _MASK_FIELDS, _IMAGE_COLUMNS))
                for name in ("index", "width", "height"):  # other writers have other whole numbers
                    place, kind = table.schema.get_field_index(name), ANNOTATION_SCHEMA.field(name).type
                    table = table.set_column(place, name, table[name].cast(kind))
                return table
        except SSPSAMError as error:
            return str(error)

    def _insert(self, batch: _Batch) -> None:
        """Add a batch in one transaction: a query sees all of a file or nothing."""
        with self.cursor() as cursor:
            next_id, next_file = cursor.execute(
                f"select greatest((select coalesce(max(id) + 1, 0) from images), {self._first_id}), "
                "coalesce((select max(file_id) + 1 from files), 0)"
            ).fetchall()[0]
            images, masks, files = [], [], []
            for offset, (file, table) in enumerate(batch):
                images.append(_image_table(table, next_id, next_file + offset))
                masks.append(_mask_table(table, next_id))
                files.append((next_file + offset, file.path, file.size))
                next_id += table.num_rows
            cursor.register("new_images", pa.concat_tables(images))
            cursor.register("new_masks", pa.concat_tables(masks))
            cursor.execute("begin")
            cursor.executemany("insert into files values (?, ?, ?)", files)
            cursor.execute("insert into images select * from new_images")
            cursor.execute(
                f"""insert into phrases
                select (select coalesce(max(phrase_id) + 1, 0) from phrases)
                    + row_number() over () - 1, phrase, {fold("phrase")}
                from (select distinct phrase from new_masks) fresh
                anti join phrases using (phrase)"""
            )
            signals = ", ".join(_SIGNALS)
            cursor.execute(
                f"""insert into masks
                select image_id, position, phrase_id, has_target, truncated, area, area_fraction,
                target_pixels, {signals}
                from new_masks join phrases using (phrase) order by image_id, position"""
            )
            cursor.execute("commit")


def _image_table(table: pa.Table, first_id: int, file_id: int) -> pa.Table:
    """Rows for `images` out of one file's columns."""
    count = table.num_rows
    error = table["error"]
    return pa.table(
        {
            "id": np.arange(first_id, first_id + count),
            "file_id": np.full(count, file_id, dtype=np.int32),
            "row": np.arange(count, dtype=np.int32),
            "shard": table["shard"],
            "key": table["key"],
            "idx": table["index"],
            "status": table["status"],
            "error_kind": pc.struct_field(error, "kind"),
            "error_message": pc.struct_field(error, "message"),
            "width": table["width"],
            "height": table["height"],
            "masks": pc.fill_null(pc.list_value_length(table["annotations"]), 0),
            "split": table["split"] if "split" in table.schema.names else pa.nulls(count, pa.string()),
        }
    )


def _mask_table(table: pa.Table, first_id: int) -> pa.Table:
    """Rows for `masks`, with the phrase itself instead of its id."""
    lists = table["annotations"].combine_chunks()
    parents = np.asarray(pc.list_parent_indices(lists), dtype=np.int64)
    items = pc.list_flatten(lists)
    positions = np.arange(len(parents)) - np.searchsorted(parents, parents)
    area = pc.struct_field(items, "area")
    # Float64: Arrow refuses to make float32 of more than 2**24 pixels, which a photo can have.
    sides = [pc.cast(table[name], pa.float64()).combine_chunks() for name in ("width", "height")]
    fraction = pc.divide(pc.cast(area, pa.float64(), safe=False), pc.multiply(*sides).take(parents))
    columns = {
        "image_id": parents + first_id,
        "position": positions.astype(np.int32),
        "phrase": pc.fill_null(pc.struct_field(items, "phrase"), ""),
        "has_target": pc.fill_null(pc.struct_field(items, "has_target"), False),
        "truncated": pc.struct_field(items, "truncated"),
        "area": area,
        "area_fraction": fraction,
        "target_pixels": pc.struct_field(items, "target_pixels"),
    }
    for name in _SIGNALS:
        there = items.type.get_field_index(name) >= 0
        columns[name] = pc.struct_field(items, name) if there else pa.nulls(len(items), pa.float32())
    return pa.table(columns)
