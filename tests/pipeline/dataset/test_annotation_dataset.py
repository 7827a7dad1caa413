"""Opening an annotation dataset: what the views hold, and what is refused in which words."""

from __future__ import annotations

import datetime
import json
import re
import shutil
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

from jobs.cli import main
from pipeline.dataset.annotation_dataset import read_reviews
from pipeline.dataset.dataset_schema import REVIEW_SCHEMA
from pipeline.dataset.opening import open_dataset
from pipeline.dataset.segmentations import segmentation_problems
from sspsam.errors import DataError
from sspsam.schema import ANNOTATION_SCHEMA, ANNOTATION_TYPE, RLE_TYPE
from tests.pipeline.annotation_fixture import HOSTILE_PHRASE, encode_rle, make_dataset


def write_reviews(output: Path, name: str, rows: list[tuple[str, str, str | None, str, int]]) -> None:
    """rows: (key, shard, phrase, verdict, minute)."""
    table = pa.Table.from_pylist(
        [
            {
                "key": key,
                "shard": shard,
                "phrase": phrase,
                "verdict": verdict,
                "note": None,
                "reviewed_at": datetime.datetime(2026, 1, 1, 0, minute, tzinfo=datetime.timezone.utc),
            }
            for key, shard, phrase, verdict, minute in rows
        ],
        schema=REVIEW_SCHEMA,
    )
    (output / "reviews").mkdir(exist_ok=True)
    pq.write_table(table, output / "reviews" / name)


def test_views_hold_every_row_and_phrase(tmp_path: Path) -> None:
    made = make_dataset(tmp_path / "it's [a] *folder*")
    write_reviews(
        made.output,
        "b.parquet",
        [("0000-00000", "shard-0000", None, "reject", 5), ("0000-00001", "shard-0000", "x", "flag", 1)],
    )
    write_reviews(made.output, "a.parquet", [("0000-00000", "shard-0000", None, "accept", 7)])
    dataset = open_dataset(str(made.output))
    assert (dataset.rows, len(dataset.files), dataset.curated) == (12, 4, False)
    assert {dataset.shard_of(file) for file in dataset.files} == {"shard-0000", "shard-0001"}
    with dataset.connect(threads=1) as connection:
        images = connection.sql("SELECT key, status, phrase_count, mask_count FROM images").fetchall()
        masks = connection.sql('SELECT key, phrase_index, phrase, score, "end" FROM masks').fetchall()
        reviews = connection.sql("SELECT key, verdict FROM reviews ORDER BY key").fetchall()
    for key, status, phrases, targets in images:
        annotations = made.rows[key]["annotations"]
        assert status == made.rows[key]["status"]
        assert (phrases, targets) == (len(annotations), sum(one["has_target"] for one in annotations))
    assert len(masks) == sum(len(row["annotations"]) for row in made.rows.values())
    for key, position, phrase, score, end in masks:
        annotation = made.rows[key]["annotations"][position]
        assert (annotation["phrase"], annotation["score"], annotation["end"]) == (phrase, score, end)
    assert masks[0][2] == HOSTILE_PHRASE
    assert reviews == [("0000-00000", "accept"), ("0000-00001", "flag")]


def test_a_dataset_behind_fsspec(tmp_path: Path) -> None:
    made = make_dataset(tmp_path, images=6, shards=1)
    remote = fsspec.filesystem("memory")
    remote.put(f"{made.output}/", "/bucket/out/", recursive=True)
    dataset = open_dataset("memory://bucket/out")
    with dataset.connect(threads=1) as connection:
        assert connection.sql("SELECT count(*) FROM images").fetchall() == [(6,)]
    tables = list(dataset.read_batches(dataset.files[0], ["key", "annotations"], rows=3))
    assert [table.num_rows for table in tables] == [3, 1]
    assert pa.concat_tables(tables)["key"].to_pylist() == list(made.rows)[:4]
    assert dataset.read_json("_stats.json")["images"] == 6  # type: ignore[index]
    assert dataset.read_json("_nothing.json") is None


def _spoil(output: Path, how: str) -> Path:
    path = output / "annotations/shard-0000/00000.parquet"
    table = pq.read_table(path)
    if how == "truncated":
        path.write_bytes(path.read_bytes()[:-200])
    elif how == "not parquet":
        path.write_text("hello")
    elif how == "other schema":
        pq.write_table(pa.table({"url": ["a"], "text": ["b"]}), path)
    elif how == "other type":
        column = table.schema.get_field_index("width")
        pq.write_table(table.set_column(column, "width", table["width"].cast(pa.string())), path)
    elif how == "field missing":
        annotations = [
            [{name: value for name, value in one.items() if name != "score"} for one in row or []]
            for row in table["annotations"].to_pylist()
        ]
        column = table.schema.get_field_index("annotations")
        pq.write_table(table.set_column(column, "annotations", pa.array(annotations)), path)
    elif how == "reviews":
        path = output / "reviews/x.parquet"
        path.parent.mkdir()
        pq.write_table(pa.table({"key": ["a"]}), path)
    elif how == "unfinished":
        (output / "_curation.json").write_text(json.dumps({"complete": False}))
        return output
    return path


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ("truncated", "not a whole Parquet file"),
        ("not parquet", "not a whole Parquet file"),
        ("other schema", "no column 'key'"),
        ("other type", "column 'width' is string, not int32"),
        ("field missing", r"column 'annotations\[\]' has no field 'score'"),
        ("reviews", "not a file of verdicts"),
        ("unfinished", "did not finish"),
    ],
)
def test_a_bad_file_is_named_with_the_mend(tmp_path: Path, how: str, says: str) -> None:
    output = make_dataset(tmp_path, images=6, shards=1).output
    path = _spoil(output, how)
    with pytest.raises(DataError, match=says) as caught:
        read_reviews(open_dataset(str(output)))
    assert str(path) in str(caught.value)


def test_a_verdict_that_nobody_knows_is_named(tmp_path: Path) -> None:
    output = make_dataset(tmp_path, images=2, shards=1).output
    write_reviews(output, "a.parquet", [("a", "b", None, "none", 1), ("a", "b", "c", "rejected", 2)])
    with pytest.raises(DataError, match=r"a.parquet: verdict 'rejected' is none of accept, reject, flag"):
        read_reviews(open_dataset(str(output)))


def test_a_wrong_folder_is_explained(tmp_path: Path) -> None:
    output = make_dataset(tmp_path, images=2, shards=1).output
    for folder, says in (
        (tmp_path / "none", "no such folder"),
        (output / "annotations", "give the folder above"),
        (output / "annotations/shard-0000/00000.parquet", "is one file"),
        (tmp_path / "input", "nothing is annotated"),
    ):
        with pytest.raises(DataError, match=says):
            open_dataset(str(folder))


def test_files_rewritten_by_other_tools_are_read(tmp_path: Path) -> None:
    """DuckDB turns fixed-length lists into plain ones; the rows stay the same."""
    import duckdb

    made = make_dataset(tmp_path, images=6, shards=1)
    path = made.output / "annotations/shard-0000/00000.parquet"
    copy = tmp_path / "copy.parquet"
    duckdb.sql(f"COPY (FROM read_parquet('{path}')) TO '{copy}'")
    before = list(open_dataset(str(made.output)).read_batches(open_dataset(str(made.output)).files[0]))
    shutil.move(copy, path)
    dataset = open_dataset(str(made.output))
    after = list(dataset.read_batches(dataset.files[0]))
    assert pa.concat_tables(after).to_pylist() == pa.concat_tables(before).to_pylist()


def test_files_with_lists_of_fixed_length_are_read_beside_others(tmp_path: Path) -> None:
    """Earlier versions wrote boxes as lists of fixed length, whose nulls pyarrow before 26 cannot read."""
    made = make_dataset(tmp_path, images=12, shards=2)
    assert not re.search("fixed_size_list", str(ANNOTATION_SCHEMA))
    before = curated_rows(made.output, tmp_path / "before")
    path = made.output / "annotations/shard-0000/00000.parquet"
    table = pq.read_table(path)
    place = table.schema.get_field_index("annotations")
    fixed = {"bbox": pa.list_(pa.float32(), 4), "predicted_box": pa.list_(pa.float32(), 4)}
    kind = pa.struct([(item.name, fixed.get(item.name, item.type)) for item in ANNOTATION_TYPE])
    schema = table.schema.set(place, pa.field("annotations", pa.list_(kind)))
    pq.write_table(table.cast(schema), path)
    assert "fixed_size_list" in str(pq.read_schema(path))
    assert curated_rows(made.output, tmp_path / "after") == before


def curated_rows(output: Path, destination: Path) -> list[dict[str, Any]]:
    """What `curate` without filters keeps."""
    assert main(["curate", str(output), str(destination)]) == 0
    return pyarrow.dataset.dataset(destination / "annotations").to_table().to_pylist()


def test_broken_segmentations_are_told_from_sound_ones() -> None:
    rng = np.random.default_rng(0)
    sound, sizes = [], []
    for number in range(60):
        height, width = (int(side) for side in rng.integers(1, 90, 2))
        mask = rng.random((height, width)) < rng.random() * (number % 3)
        sound.append(encode_rle(mask))
        sizes.append((height, width))
    assert segmentation_problems(pa.array(sound, RLE_TYPE), np.array(sizes)) == {}
    good, size = sound[1], sizes[1]
    broken = [
        ({"size": list(size), "counts": good["counts"][:-1]}, "does not fit|ends early"),
        ({"size": list(size), "counts": good["counts"] + "1"}, "does not fit"),
        ({"size": list(size), "counts": ""}, "ends early"),
        ({"size": list(size), "counts": "<b>!"}, "other characters"),
        ({"size": list(size), "counts": "oooooooooooooo0"}, "longer than any"),
        ({"size": [size[1] + 1, size[0]], "counts": good["counts"]}, "does not fit|its image of"),
        ({"size": list(size), "counts": None}, "holds no RLE"),
        (None, "holds no RLE"),
    ]
    problems = segmentation_problems(
        pa.array([one for one, _ in broken] + [good], RLE_TYPE), np.array([size] * (len(broken) + 1))
    )
    assert sorted(problems) == list(range(len(broken)))
    for row, (_, says) in enumerate(broken):
        assert any(part in problems[row] for part in says.split("|")), problems[row]
