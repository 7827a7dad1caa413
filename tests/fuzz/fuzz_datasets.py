"""Annotation datasets that no writer of ours made, given to each command that reads one."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from starlette.requests import Request

from jobs import curate, export, report, stats
from pipeline.view import ViewConfig, server
from sspsam.data import DataConfig, read_records
from sspsam.schema import ANNOTATION_SCHEMA
from tests.fuzz.corpus import MAX_PIXELS, made
from tests.fuzz.mutations import hostile_value, spoil_bytes, spoil_text, spoil_tree, spoil_value
from tests.fuzz.verdicts import FindingError, command, judged


def _spoiled_dataset(rng: random.Random, folder: Path) -> Path:
    """A copy of a dataset with one file damaged, or with rows that no writer of ours makes."""
    output = folder / "out"
    shutil.copytree(made().output, output)
    files = sorted((output / "annotations").rglob("*.parquet"))
    spoiled, way = rng.choice(files), rng.random()
    if way < 0.25:
        spoiled.write_bytes(spoil_bytes(spoiled.read_bytes(), rng))
    elif way < 0.35:
        manifest = output / rng.choice(("_run.json", "_stats.json"))
        tree = json.loads(manifest.read_text())
        spoiled_tree = json.dumps(spoil_tree(tree, rng)).encode()
        manifest.write_bytes(spoil_text(spoiled_tree, rng) if rng.random() < 0.5 else spoiled_tree)
    else:
        nullable = [field.with_nullable(True) for field in ANNOTATION_SCHEMA]
        schema = pa.schema(nullable, ANNOTATION_SCHEMA.metadata)
        rows = pq.read_table(spoiled).to_pylist()
        for _ in range(rng.choice((1, 2, 5))):
            row, field = (
                rng.choice(rows),
                rng.choice([*schema, schema.field("annotations"), schema.field("annotations")]),
            )
            row[field.name] = spoil_value(row[field.name], field.type, rng)
        _write(pa.Table.from_pylist(rows, schema), spoiled, rng)
    return output


def _write(table: pa.Table, path: Path, rng: random.Random) -> None:
    if rng.random() < 0.1:
        name = rng.choice(table.schema.names)
        kind = rng.choice((pa.string(), pa.int64(), pa.list_(pa.string()), pa.float32(), pa.binary()))
        column = pa.array([hostile_value(kind, rng) for _ in range(len(table))], kind)
        table = table.set_column(table.schema.names.index(name), name, column)
    elif rng.random() < 0.05:
        table = table.drop_columns([rng.choice(table.schema.names)])
    pq.write_table(table, path, row_group_size=rng.choice((1, 100)))


def dataset_stats(rng: random.Random, folder: Path) -> None:
    output = _spoiled_dataset(rng, folder)
    more = ["--compare", str(made().truth)] if rng.random() < 0.3 else []
    command(stats.main, [str(output), *more, "--json"], "out/", str(output), codes=(0,))


def dataset_report(rng: random.Random, folder: Path) -> None:
    output = _spoiled_dataset(rng, folder)
    arguments = [
        str(output),
        "--page",
        str(folder / "r.html"),
        "--sheet",
        str(folder / "r.png"),
        "--tiles",
        "4",
        "--image-root",
        str(made().input),
    ]
    command(report.main, arguments, "out/", str(output))


def dataset_curate(rng: random.Random, folder: Path) -> None:
    output = _spoiled_dataset(rng, folder)
    arguments = [str(output), str(folder / "cut"), "--where", "score > 0.3", "--workers", "1"]
    more = rng.choice(
        ([], ["--merge-iou", "0.9"], ["--phash-distance", "4"], ["--split", "train=0.5,val=0.5"])
    )
    command(curate.main, [*arguments, *more], "out/", str(output))


def dataset_export(rng: random.Random, folder: Path) -> None:
    output = _spoiled_dataset(rng, folder)
    form = rng.choice(("coco", "yolo", "labelstudio", "webdataset", "hf", "coco-panoptic"))
    arguments = [str(output), str(folder / "x"), "--format", form, "--workers", "1"]
    command(export.main, [*arguments, "--image-root", str(made().input)], "out/", str(output))


def dataset_train(rng: random.Random, folder: Path) -> None:
    output = _spoiled_dataset(rng, folder)
    config = DataConfig(str(output), "annotations", split="all", image_root=(str(made().input),))

    def use() -> None:
        for record in read_records(config):
            if record.height and record.width and record.height * record.width < MAX_PIXELS:
                judged(lambda record=record: record.rle(record.height, record.width), "record ", str(output))

    judged(use, str(output))


def _request(path: dict[str, Any], **parameters: str) -> Request:
    from urllib.parse import urlencode

    scope = {"type": "http", "method": "GET", "headers": [], "path": "/", "path_params": path}
    return Request({**scope, "query_string": urlencode(parameters, errors="replace").encode()})


def viewed(
    viewer: server.Viewer, handler: Callable[..., Any], path: dict[str, Any], **parameters: str
) -> None:
    response = server._answered(lambda: handler(viewer, _request(path, **parameters)))
    if response.status_code != 200:
        error = json.loads(response.body)["error"]
        if not error or "Traceback" in error:
            raise FindingError(f"{handler.__name__}: {response.body!r}")


def dataset_view(rng: random.Random, folder: Path) -> None:
    output = _spoiled_dataset(rng, folder)

    def use() -> None:
        viewer = server.Viewer(ViewConfig(str(output), threads=1, image_root=(str(made().input),)))
        try:
            viewer.fill()
            if viewer.problem and str(output) not in viewer.problem:
                raise FindingError(f"the page says {viewer.problem!r}, which names no file")
            for problem in viewer.index.progress().problems:
                if "out" not in problem[0]:
                    raise FindingError(f"{problem}")
            viewed(viewer, server._state, {})
            viewed(viewer, server._cards, {}, unit="images")
            viewed(viewer, server._cards, {}, unit="masks", sort="score")
            viewed(viewer, server._histogram, {}, measure="area")
            for number in range(8):
                viewed(viewer, server._picture, {"image": number}, side="64")
        finally:
            viewer.close()

    judged(use, str(output))
