"""The queue of an audit in a real browser: verdicts by key, progress, undo, time, and a second reviewer."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from playwright.sync_api import Page, expect

from pipeline.audit import begin
from pipeline.dataset.annotation_dataset import read_every_review
from pipeline.dataset.opening import open_dataset
from pipeline.dataset.phrase_rows import add_signals
from pipeline.dataset.reviews import votes_of
from pipeline.dataset.store import Store
from tests.pipeline.annotation_fixture import make_dataset
from tests.pipeline.view.conftest import running

OpenPage = Callable[..., Page]


def test_a_queue_is_worked_off(tmp_path: Path, open_page: OpenPage) -> None:
    made = make_dataset(tmp_path / "made", images=10, shards=1)
    plain, output = open_dataset(str(made.output)), tmp_path / "scored"
    for file in plain.files:
        (table,) = plain.read_batches(file)
        scores = [one["score"] or 0.1 for row in table["annotations"].to_pylist() for one in row]
        Store(str(output)).put_table(
            file.path.removeprefix(f"{plain.root}/"), add_signals(table, {"p_correct": np.array(scores)})
        )
    shutil.copy(made.output / "_run.json", output)
    dataset = open_dataset(str(output))
    audit = begin(dataset, 8, precision=0.9, confidence=0.9, seed=0, memory_mb=256)
    rows = audit.rows.to_pylist()
    count = len(rows)
    with running(output, audit=audit.name, reviewer="ann") as url:
        page = open_page(url)
        meta = page.locator("#detail-meta")
        for number, row in enumerate(rows[:3]):
            expect(meta).to_contain_text(f"{number} of {count} decided")
            expect(page.locator("#detail-title")).to_have_text(row["key"])
            expect(page.locator("#mask-list li.chosen .name")).to_contain_text(row["phrase"])
            page.keyboard.press("arf"[number])
        expect(meta).to_contain_text(f"3 of {count} decided")
        page.keyboard.press("u")
        expect(meta).to_contain_text(f"2 of {count} decided")
        expect(page.locator("#detail-title")).to_have_text(rows[2]["key"])
        page.locator("[data-verdict=accept]").click()
        expect(meta).to_contain_text(f"3 of {count} decided")
        expect(page.locator("html[data-storing]")).to_have_count(0)
        page.reload()  # the queue goes on where it was
        expect(meta).to_contain_text(f"3 of {count} decided")
        for number in range(3, count):
            expect(meta).to_contain_text(f"{number} of {count} decided")
            page.keyboard.press("a")
        expect(page.locator("#detail")).to_be_hidden()
        expect(page.locator("#audit-button")).to_have_text(f"Audit: {count} of {count} decided")
        expect(page.locator("html[data-storing]")).to_have_count(0)
    votes = votes_of(read_every_review(dataset))
    given = [votes[row["shard"], row["key"], row["phrase"]] for row in rows]
    assert given == [{"ann": "accept"}, {"ann": "reject"}, *({"ann": "accept"} for _ in rows[2:])]
    seconds = read_every_review(dataset)["seconds"].drop_null().to_pylist()
    assert len(seconds) == count + 1
    assert all(0 < value < 60 for value in seconds)
    with running(output, audit=audit.name, reviewer="bob") as url:
        page = open_page(url)
        expect(page.locator("#detail-meta")).to_contain_text(f"0 of {count} decided")
        assert page.locator("#mask-list .badge").count() == 0  # what ann said is not shown
        page.keyboard.press("r")
        expect(page.locator("#detail-meta")).to_contain_text(f"1 of {count} decided")
        expect(page.locator("html[data-storing]")).to_have_count(0)
    votes = votes_of(read_every_review(dataset))
    assert votes[rows[0]["shard"], rows[0]["key"], rows[0]["phrase"]] == {"ann": "accept", "bob": "reject"}
