"""Every recipe of docs/cookbook.md runs and answers with rows; some are counted again here."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import duckdb
import pytest

from pipeline.curate import CurateConfig, CurateResources, curate
from pipeline.dataset.opening import open_dataset
from tests.pipeline.annotation_fixture import MadeDataset, make_dataset
from tests.pipeline.dataset.test_annotation_dataset import write_reviews

TEXT = (Path(__file__).parents[2] / "docs/cookbook.md").read_text(encoding="utf-8")
RECIPES = [(kind.strip(), sql) for kind, sql in re.findall(r"```sql(.*?)\n(.*?)```", TEXT, re.S)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> MadeDataset:
    folder = tmp_path_factory.mktemp("cookbook")
    made = make_dataset(folder, images=24)
    reviews = [
        (row["key"], row["shard"], row["annotations"][0]["phrase"], ("accept", "reject")[at % 2], 1)
        for at, row in enumerate(row for row in made.rows.values() if row["status"] == "ok")
    ]
    write_reviews(made.output, "a.parquet", reviews)
    config = CurateConfig(reviews="ignore", merge_iou=0.9)
    curate(str(made.output), str(folder / "curated"), config, CurateResources(workers=1))
    return made


def test_there_are_at_least_twenty_and_they_are_numbered() -> None:
    numbers = [int(number) for number in re.findall(r"^\*\*(\d+)\. ", TEXT, re.M)]
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(numbers) == len(RECIPES) - 1 >= 20


def test_every_recipe_answers(made: MadeDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    answers: list[Any] = []
    for kind, sql in RECIPES[1:]:
        folder = made.output.parent / "curated" if kind == "curated" else made.output
        with open_dataset(str(folder)).connect(threads=1) as connection:
            rows = connection.execute(sql).fetchall()
        assert rows, sql
        assert all(any(value is not None for value in row) for row in rows), sql
        answers.append(rows)
    status = Counter(row["status"] for row in made.rows.values())
    assert {name: count for name, count, _ in answers[0]} == dict(status)
    assert answers[1][0][:2] == ("truncated_image", status["error"])
    for key, phrase, words, before, after in answers[8]:
        assert phrase == words
        assert made.rows[key]["caption"] == before + words + after
    masks = [one for row in made.rows.values() for one in row["annotations"]]
    gained = {pixels: count for pixels, count, _ in answers[11]}
    assert gained[10] == sum(one["target_pixels"] >= 10 and not one["has_target"] for one in masks) > 0
    assert any(images > 1 for _, images, _ in answers[16])
    assert answers[17][0][2] == 0
    assert sum(row[1] for row in answers[19]) > 5
    assert (tmp_path / "selection.parquet").exists()


def test_the_views_for_the_shell_are_those_of_python(made: MadeDataset) -> None:
    with duckdb.connect() as shell, open_dataset(str(made.output)).connect(threads=1) as ours:
        for statement in RECIPES[0][1].replace("OUTPUT", str(made.output)).split(";\n"):
            if statement.strip():
                shell.execute(statement)
        for view in ("images", "masks"):
            there, here = (
                {name for name, *_ in one.execute(f"DESCRIBE {view}").fetchall()} for one in (shell, ours)
            )
            assert here - there <= {"phrase_count", "mask_count"}
            assert there <= here
        query = 'SELECT shard, key, phrase_index, phrase, score, "end" FROM masks ORDER BY 1, 2, 3'
        assert shell.execute(query).fetchall() == ours.execute(query).fetchall()
