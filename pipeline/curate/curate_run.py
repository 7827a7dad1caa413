"""`curate`: the chain from a dataset to its curated copy."""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.curate import whole
from pipeline.curate.curate_config import CurateConfig, CurateResources
from pipeline.curate.funnel import funnel
from pipeline.curate.kept_precision import find_guarantee, promise_card
from pipeline.curate.per_image import Judge, Verdicts
from pipeline.curate.rewrite import rewrite
from pipeline.dataset.annotation_dataset import AnnotationDataset, read_reviews
from pipeline.dataset.data_card import write_made_card
from pipeline.dataset.destination import Destination
from pipeline.dataset.opening import open_dataset
from pipeline.dataset.phrase_rows import IMAGES, MASKS, Counts, survivors

MANIFEST = "_curation.json"

#: Files of one shard that one process reads and writes at a time.
_FILES_PER_UNIT = 64

#: A further process is started for each so many images: below that its start costs more than it saves.
ROWS_A_PROCESS = 10_000

#: Bytes of rows held before they are written, where images are embedded.
_HELD_BYTES = 128 << 20


@dataclass(frozen=True)
class Unit:
    """Consecutive files of one shard: dataset.files[first:last + 1]; `number` counts the units."""

    number: int
    shard: str
    part: int
    first: int
    last: int


@dataclass(frozen=True)
class Job:
    """What a worker process needs for any unit."""

    dataset: AnnotationDataset
    destination: Destination
    judge: Judge
    resources: CurateResources
    scratch: Path


def curate(
    source: str,
    destination: str,
    config: CurateConfig | None = None,
    resources: CurateResources | None = None,
    *,
    overwrite: bool = False,
    storage_options: Mapping[str, Any] | None = None,
    image_roots: Sequence[str] = (),
) -> dict[str, Any]:
    """Write what `config` keeps of the dataset `source` to `destination`; return its `_curation.json`.

    `destination` has the layout and schema of the source with the column `split` and the field
    `annotations[].aliases`, and `_curation.json`. The source is only read.
    Raises ConfigError (a flag, an existing destination) or DataError (a file of the source).
    """
    config, resources = config or CurateConfig(), resources or CurateResources()
    started = time.monotonic()
    dataset = open_dataset(source, storage_options=storage_options, image_roots=image_roots)
    verdicts = _verdicts(dataset) if config.reviews != "ignore" else {}
    guarantee = None
    given = config
    if config.precision is not None:
        guarantee = find_guarantee(dataset, config, resources.memory_mb)
        passes = f"p_correct >= {guarantee.threshold:.4f}::float"
        config = replace(config, where=(*config.where, passes))
    judge = Judge(config, dataset.schema, verdicts)
    _ = judge.predicates  # a wrong one is said before anything is written
    output = Destination(str(destination), MANIFEST, dict(storage_options or {}))
    output.begin(overwrite=overwrite, sources=[source])
    units = plan_units(dataset)
    with tempfile.TemporaryDirectory(prefix="curate-", dir=resources.scratch) as scratch:
        job = Job(dataset, output, judge, resources, Path(scratch))
        workers = min(resources.workers, len(units), 1 + dataset.rows // ROWS_A_PROCESS)
        with _processes(job, workers) as each:
            read = sum(each(read_unit, units), Counter())
            decided = whole.decide(job.scratch, config, resources)
            written = sum(each(write_unit, units), Counter())
    counts = read + decided.counts + written
    manifest = _manifest(job, counts, decided)
    manifest["config"] = given.as_json()
    if guarantee is not None:
        manifest["guarantee"] = {**vars(guarantee), "statement": guarantee.statement()}
        output.store.put("README.md", promise_card(guarantee).encode())
    manifest["seconds"] = round(time.monotonic() - started, 3)
    output.finish(manifest)
    if manifest["images_out"]:
        write_made_card(output.store, ("sspsam", "curate", source, destination), manifest)
    return {"complete": True, **manifest}


Work: TypeAlias = Callable[[Job, Unit], Counts]


def plan_units(dataset: AnnotationDataset) -> list[Unit]:
    """The dataset's files in units of one shard each."""
    positions: dict[str, list[int]] = defaultdict(list)
    for position, file in enumerate(dataset.files):
        positions[dataset.shard_of(file)].append(position)
    units: list[Unit] = []
    for shard, places in positions.items():
        for part, start in enumerate(range(0, len(places), _FILES_PER_UNIT)):
            portion = places[start : start + _FILES_PER_UNIT]
            units.append(Unit(len(units), shard, part, portion[0], portion[-1]))
    return units


def read_unit(job: Job, unit: Unit) -> Counts:
    """First pass: decide on each row by itself; the survivors go to the scratch folder."""
    columns = [name for name in job.dataset.schema.names if name != "image"]
    config = job.judge.config
    counts: Counts = Counter()
    paths = [job.scratch / f"{name}-{unit.number:06d}.parquet" for name in ("images", "masks")]
    with pq.ParquetWriter(paths[0], IMAGES) as images, pq.ParquetWriter(paths[1], MASKS) as masks:
        for file in range(unit.first, unit.last + 1):
            first_row = 0
            for table in job.dataset.read_batches(job.dataset.files[file], columns):
                batch = job.judge.judge(table)
                left = survivors(batch, file, first_row, seed=config.seed, hashed=config.cap_order == "hash")
                images.write_table(left[0])
                masks.write_table(left[1])
                counts += batch.counts
                counts["input", "images", ""] += table.num_rows
                counts["input", "phrases", ""] += len(batch.row_of)
                first_row += table.num_rows
    return counts


def write_unit(job: Job, unit: Unit) -> Counts:
    """Second pass: write what is left of a unit as files of the destination."""
    counts: Counts = Counter()
    held: list[pa.Table] = []
    files = 0
    for table in _curated_rows(job, unit, counts):
        held.append(table)
        rows = sum(one.num_rows for one in held)
        if rows >= job.resources.rows_per_file or sum(one.nbytes for one in held) >= _HELD_BYTES:
            files = _write(job, unit, files, held)
            held = []
    if held:
        _write(job, unit, files, held)
    return counts


def _curated_rows(job: Job, unit: Unit, counts: Counts) -> Iterator[pa.Table]:
    config = job.judge.config
    images, masks = (_left(job.scratch, name, unit) for name in ("images", "masks"))
    image_file, mask_file = np.asarray(images["file"]), np.asarray(masks["file"])
    for file in range(unit.first, unit.last + 1):
        image_rows = np.asarray(images["row"])[image_file == file]
        of_file = masks.filter(pa.array(mask_file == file))
        mask_rows = np.asarray(of_file["row"])
        first_row = 0
        for table in job.dataset.read_batches(job.dataset.files[file]):
            end = first_row + table.num_rows
            rows = image_rows[(image_rows >= first_row) & (image_rows < end)]
            chosen = of_file.filter(pa.array((mask_rows >= first_row) & (mask_rows < end)))
            if not config.keep_empty:
                filled = np.isin(rows, np.asarray(chosen["row"]))
                counts[whole.CAPS, "dropped_images", "no_phrase_left"] += int((~filled).sum())
                rows = rows[filled]
            chosen = chosen.set_column(
                chosen.schema.get_field_index("row"), "row", pa.array(np.asarray(chosen["row"]) - first_row)
            )
            kept = rewrite(table, rows - first_row, chosen, config.split, config.seed)
            _count_splits(kept, counts)
            if kept.num_rows:
                yield kept
            first_row = end


def _left(scratch: Path, name: str, unit: Unit) -> pa.Table:
    """The survivors of a unit without what was dropped over the whole dataset, in dataset order."""
    dropped = {"dropped_images": "file, row"}
    if name == "masks":
        dropped["dropped_masks"] = "file, row, mask"
    sql, paths = "FROM read_parquet(?)", [f"{scratch}/{name}-{unit.number:06d}.parquet"]
    for out, keys in dropped.items():
        of_unit = f"FROM read_parquet(?) WHERE file BETWEEN {unit.first} AND {unit.last}"
        sql += f" ANTI JOIN ({of_unit}) USING ({keys})"
        paths.append(f"{scratch}/{out}.parquet")
    with duckdb.connect(config={"threads": 1}) as connection:
        return connection.sql(f"{sql} ORDER BY {keys}", params=paths).to_arrow_table()


def _count_splits(kept: pa.Table, counts: Counts) -> None:
    phrases = kept["annotations"].combine_chunks().value_lengths().to_pylist()
    for split, number in zip(kept["split"].to_pylist(), phrases, strict=True):
        counts["output", "images", split] += 1
        counts["output", "phrases", split] += number


def _write(job: Job, unit: Unit, files: int, held: list[pa.Table]) -> int:
    table = pa.concat_tables(held)
    limit = job.resources.rows_per_file
    for start in range(0, table.num_rows, limit):
        name = PurePosixPath("annotations", unit.shard, f"{unit.part:05d}-{files:05d}.parquet")
        job.destination.store.put_table(str(name), table.slice(start, limit))
        files += 1
    return files


def _manifest(job: Job, counts: Counts, decided: whole.Whole) -> dict[str, Any]:
    config = job.judge.config
    stages = [*job.judge.stages(), *whole.stages(config)]
    images, phrases = counts["input", "images", ""], counts["input", "phrases", ""]
    splits = {
        name: {unit: counts["output", unit, name] for unit in ("images", "phrases")} for name in config.split
    }
    steps = funnel(stages, counts, images, phrases)
    out = {unit: sum(split[unit] for split in splits.values()) for unit in ("images", "phrases")}
    if (steps[-1]["images"], steps[-1]["phrases"]) != (out["images"], out["phrases"]):
        raise RuntimeError(f"curate lost count: {steps[-1]} but {out} were written; this is a bug")
    return {
        "version": 1,
        "source": job.dataset.url,
        "dest": job.destination.url,
        "config": config.as_json(),
        "images_in": images,
        "phrases_in": phrases,
        "images_out": out["images"],
        "phrases_out": out["phrases"],
        "funnel": steps,
        "capped_phrases": decided.capped,
        "splits": splits,
        "image_places": job.dataset.image_places.to_json(),
        "run": job.dataset.run() or None,
    }


def _verdicts(dataset: AnnotationDataset) -> Verdicts:
    """The newest verdict on each image and phrase; "none" (withdrawn) is as if there were none."""
    verdicts: dict[tuple[str, str], dict[str | None, str]] = defaultdict(dict)
    for row in read_reviews(dataset).to_pylist():
        verdicts[row["shard"], row["key"]][row["phrase"]] = row["verdict"]
    return dict(verdicts)


@contextmanager
def _processes(job: Job, workers: int) -> Iterator[Callable[[Work, list[Unit]], Iterator[Counts]]]:
    """A `map` of read_unit or write_unit over units, by this process or by several."""
    if workers == 1:
        yield lambda work, units: map(partial(work, job), units)
        return
    # Not forked: Arrow, DuckDB and S3 clients hold threads that a fork would lose.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=_take, initargs=(job,)) as pool:
        yield lambda work, units: pool.map(partial(_with_job, work), units)


_jobs: list[Job] = []


def _take(job: Job) -> None:
    """Keep the job of this process: with many files it is too large to send with each unit."""
    _jobs.append(job)


def _with_job(work: Work, unit: Unit) -> Counts:
    return work(_jobs[-1], unit)
