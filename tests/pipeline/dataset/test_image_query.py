"""Filters and order against the same computed from the rows; growth; verdicts."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.dataset.annotation_dataset import read_reviews
from pipeline.dataset.image_query import Query, count_hits, find_hits, histogram
from pipeline.dataset.opening import open_dataset
from pipeline.dataset.phrase_index import Index
from pipeline.dataset.reviews import Reviews, Verdict
from sspsam.errors import ConfigError, DataError
from sspsam.schema import ANNOTATION_SCHEMA
from tests.pipeline.annotation_fixture import HOSTILE_PHRASE, MadeDataset, make_dataset

Test = Callable[[dict[str, Any], dict[str, Any]], bool]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> MadeDataset:
    """24 images in two shards; the first has hostile text, each shard one error and one no_phrase."""
    return make_dataset(tmp_path_factory.mktemp("dataset"), images=24, seed=3)


@pytest.fixture(scope="module")
def filled(made: MadeDataset) -> Iterator[tuple[MadeDataset, Index]]:
    index = Index(open_dataset(str(made.output), tolerant=True), threads=2)
    index.refresh()
    Reviews(index).load()
    yield made, index
    index.close()


def found_keys(index: Index, parameters: dict[str, str]) -> list[tuple[str, tuple[int, ...]]]:
    query = Query.parse(parameters)
    names = dict(index.query('select id, "key" from images'))
    hits = find_hits(index, query)
    if query.limit > len(hits):
        assert count_hits(index, query) == len(hits) + query.offset
    return [(names[hit.image], hit.positions) for hit in hits]


FILTERS: list[tuple[dict[str, str], Test]] = [
    ({"phrase": "Ring"}, lambda row, one: "ring" in one["phrase"]),
    ({"phrase": "bl ring"}, lambda row, one: "bl" in one["phrase"] and "ring" in one["phrase"]),
    ({"phrase": '"bar"'}, lambda row, one: one["phrase"] == "bar"),
    ({"phrase": "'quoted'"}, lambda row, one: one["phrase"] == HOSTILE_PHRASE),
    ({"target": "no"}, lambda row, one: not one["has_target"]),
    (
        {"target": "yes", "shard": "shard-0001"},
        lambda row, one: one["has_target"] and row["shard"][-1] == "1",
    ),
    (
        {"min_score": "0.5", "max_score": "0.7"},
        lambda row, one: one["has_target"] and one["score"] is not None and 0.5 <= one["score"] <= 0.7,
    ),
    ({"min_area": "900"}, lambda row, one: one["has_target"] and one["area"] >= 900),
    (
        {"max_area_fraction": "0.05", "min_stability": "0.8"},
        lambda row, one: (
            one["has_target"]
            and one["area"] / (row["width"] * row["height"]) <= 0.05
            and one["stability"] >= 0.8
        ),
    ),
    ({"target": "no", "max_area": "0"}, lambda row, one: not one["has_target"] and one["area"] == 0),
]


@pytest.mark.parametrize(("parameters", "test"), FILTERS)
def test_filters_find_what_the_rows_say(
    filled: tuple[MadeDataset, Index], parameters: dict[str, str], test: Test
) -> None:
    made, index = filled
    expected = {
        key: tuple(i for i, one in enumerate(row["annotations"]) if test(row, one))
        for key, row in made.rows.items()
    }
    images = [(key, positions) for key, positions in expected.items() if positions]
    assert images, "the test needs something to find"
    assert found_keys(index, {**parameters, "limit": "200"}) == images
    masks = [(key, (position,)) for key, positions in images for position in positions]
    assert found_keys(index, {**parameters, "unit": "masks", "limit": "200"}) == masks


def test_order_pages_and_histogram(filled: tuple[MadeDataset, Index]) -> None:
    made, index = filled
    for measure, direction in (("score", "asc"), ("area", "desc"), ("clip_score", "asc")):
        pick = min if direction == "asc" else max
        values = {
            key: pick((one[measure] for one in row["annotations"] if one["has_target"]), default=None)
            for key, row in made.rows.items()
        }
        parameters = {"sort": measure, "direction": direction, "limit": "200"}
        ordered = [values[key] for key, _ in found_keys(index, parameters)]
        known = [value for value in ordered if value is not None]
        assert known == sorted(known, reverse=direction == "desc")
        assert ordered[len(known) :] == [None] * 4  # nothing to sort by comes last
        pages = [
            found
            for offset in range(0, 24, 5)
            for found in found_keys(index, {**parameters, "limit": "5", "offset": str(offset)})
        ]
        assert pages == found_keys(index, parameters)
    shuffled = [key for key, _ in found_keys(index, {"sort": "random", "limit": "200"})]
    assert sorted(shuffled) == sorted(made.rows)
    assert shuffled != list(made.rows)
    targets = [one for row in made.rows.values() for one in row["annotations"] if one["has_target"]]
    for measure in ("score", "area", "area_fraction"):
        assert sum(histogram(index, Query(), measure)["counts"]) == len(targets)


@pytest.mark.parametrize(
    ("parameters", "says"),
    [
        ({"sort": "width"}, "sort='width': choose from order, random, score"),
        ({"min_score": "high"}, "min_score='high' is not a number"),
        ({"limit": "0"}, "limit='0'"),
        ({"offset": "nan"}, "offset='nan'"),
        ({"min_caption": "1"}, "no filter is called 'min_caption'"),
        ({"status": "done"}, "choose from"),
    ],
)
def test_bad_parameters_are_named(parameters: dict[str, str], says: str) -> None:
    with pytest.raises(ConfigError, match=says.replace("'", ".")):
        Query.parse(parameters)


def test_index_follows_a_growing_dataset(tmp_path: Path) -> None:
    made = make_dataset(tmp_path, images=8, seed=2, shards=1)
    keep = tmp_path / "index.duckdb"
    later = made.output / "annotations/shard-0000/00001.parquet"
    waiting = tmp_path / "later.parquet"
    shutil.move(later, waiting)
    index = Index(open_dataset(str(made.output), tolerant=True), path=str(keep), threads=2)
    index.refresh()
    assert index.progress().images == 4
    shutil.copy(waiting, later)
    index.refresh()
    index.refresh()
    assert [index.progress().images, index.progress().files, index.progress().complete] == [8, 2, True]
    index.close()

    # A kept index is not read again, and not trusted for other data under the same names.
    index = Index(open_dataset(str(made.output), tolerant=True), path=str(keep), threads=2)
    assert index.progress().images == 8
    table = pa.Table.from_pylist(list(made.rows.values())[4:6], schema=ANNOTATION_SCHEMA)
    pq.write_table(table, later)
    index.refresh()
    assert index.progress().images == 6
    assert index.query("select count(*) from masks m anti join images i on i.id = m.image_id") == [(0,)]
    later.write_bytes(b"PAR1 and no more")
    index.refresh()
    progress = index.progress()
    assert progress.images == 4
    assert [message.count(str(later)) for _, message in progress.problems] == [1]
    index.close()

    # One kept by an earlier version, with fewer columns, is read again.
    with duckdb.connect(str(keep)) as connection:
        connection.execute("alter table masks drop truncated")
    later.unlink()
    index = Index(open_dataset(str(made.output), tolerant=True), path=str(keep), threads=2)
    index.refresh()
    assert index.query("select count(*), count(distinct file_id) from images") == [(4, 1)]
    index.close()


def test_photos_of_many_megapixels(tmp_path: Path) -> None:
    """float32 counts pixels only up to 2**24, and Arrow refuses what is beyond."""
    made = make_dataset(tmp_path, images=2, shards=1, hostile=False)
    path = made.output / "annotations/shard-0000/00000.parquet"
    rows = pq.read_table(path).to_pylist()
    rows[1].update(width=9000, height=6000)
    rows[1]["annotations"][0]["area"] = 27_000_000
    pq.write_table(pa.Table.from_pylist(rows, schema=ANNOTATION_SCHEMA), path)
    index = Index(open_dataset(str(made.output), tolerant=True), threads=1)
    index.refresh()
    assert index.progress().images == 2
    half = {"min_area_fraction": "0.49", "max_area_fraction": "0.51", "min_area": "27000000"}
    assert found_keys(index, half) == [(rows[1]["key"], (0,))]
    index.close()


def test_verdicts_newest_wins_and_writers_do_not_disturb_each_other(tmp_path: Path) -> None:
    made = make_dataset(tmp_path, images=8, seed=2, shards=1)
    before = {path: path.read_bytes() for path in (made.output / "annotations").rglob("*.parquet")}
    index = Index(open_dataset(str(made.output), tolerant=True), threads=2)
    index.refresh()
    reviews = Reviews(index)
    reviews.load()
    rows = [row for row in made.rows.values() if row["status"] == "ok"]
    phrase = rows[0]["annotations"][0]["phrase"]

    def say(row: dict[str, Any], phrase: str | None, verdict: str, note: str | None = None) -> Verdict:
        return Verdict(row["shard"], row["key"], phrase, verdict, note)

    reviews.write([say(rows[0], phrase, "accept"), say(rows[0], phrase, "reject", "too wide")])
    reviews.write([say(rows[1], None, "flag")])
    reviews.write([say(rows[1], None, "none"), say(rows[2], None, "accept")])
    assert reviews.counts() == {"reject": 1, "accept": 1}
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda row: reviews.write([say(row, None, "flag")]), rows * 3))
    assert reviews.counts() == {"reject": 1, "flag": len(rows)}

    files = list((made.output / "reviews").iterdir())
    assert len(files) == 3 + 3 * len(rows)
    fresh = Reviews(index)
    fresh.load()
    assert fresh.counts() == reviews.counts()
    image = index.query('select id from images where "key" = ?', [rows[0]["key"]])[0][0]
    held = fresh.of_images([image])[image]
    assert (held[phrase]["verdict"], held[phrase]["note"]) == ("reject", "too wide")
    assert held[None]["verdict"] == "flag"
    assert read_reviews(open_dataset(str(made.output))).num_rows == len(rows) + 1
    flagged = found_keys(index, {"verdict": "reject", "unit": "masks"})
    assert flagged == [(rows[0]["key"], (0,))]
    assert len(found_keys(index, {"verdict": "none"})) == 2  # the error and the no_phrase row

    for wrong, says in (
        (say({"shard": "x", "key": "y"}, None, "accept"), "no image 'y' of shard 'x'"),
        (say(rows[0], "a unicorn", "accept"), "no phrase 'a unicorn'"),
    ):
        with pytest.raises(DataError, match=says):
            reviews.write([say(rows[0], None, "accept"), wrong])
    assert len(list((made.output / "reviews").iterdir())) == len(files)
    assert {path: path.read_bytes() for path in before} == before

    (made.output / "reviews/mine.parquet").write_bytes(b"not a table")
    with pytest.raises(DataError, match=r"mine\.parquet"):
        reviews.load()
    index.close()


def test_an_index_file_that_cannot_be_used_is_named(made: MadeDataset, tmp_path: Path) -> None:
    wrong = tmp_path / "notes.txt"
    wrong.write_text("no database " * 1000)
    with pytest.raises(ConfigError, match=r"--index .*notes\.txt: cannot be opened"):
        Index(open_dataset(str(made.output), tolerant=True), path=str(wrong))
