"""The report: its numbers against the rows, its pictures, its text, and what it refuses."""

from __future__ import annotations

import base64
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from jinja2 import UndefinedError
from PIL import Image

from pipeline.report import ReportConfig, make_report
from pipeline.report.page import environment
from sspsam.errors import ConfigError, DataError
from sspsam.evaluation import SAMPLE_SCHEMA
from sspsam.schema import ANNOTATION_SCHEMA
from tests.pipeline.annotation_fixture import HOSTILE_PHRASE, MadeDataset, make_dataset


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> MadeDataset:
    return make_dataset(tmp_path_factory.mktemp("dataset"), images=24, seed=4)


class Page(HTMLParser):
    """Text of each section, images, and whatever could run or be fetched."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.sections: dict[str, str] = {}
        self.images: dict[str, list[Image.Image]] = {}
        self.suspicious: list[str] = []
        self._at = ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = dict(attributes)
        if tag == "section":
            self._at = values.get("id") or "problems"
        for name, value in attributes:
            if name.startswith("on") or (
                name in ("src", "href") and not re.match("#|data:image/jpeg", value or "")
            ):
                self.suspicious.append(f"{tag} {name}={value}")
        if tag in ("script", "link", "iframe", "object", "base"):
            self.suspicious.append(tag)
        if tag == "img":
            data = base64.b64decode((values["src"] or "").partition(",")[2])
            self.images.setdefault(self._at, []).append(Image.open(io.BytesIO(data)))

    def handle_data(self, data: str) -> None:
        self.sections[self._at] = self.sections.get(self._at, "") + data + " "


def true_ious(made: MadeDataset) -> dict[tuple[str, int], float]:
    """IoU of each phrase that has a true target, by numpy."""
    found = {}
    for key, row in made.truth_rows.items():
        for position, one in enumerate(row["annotations"]):
            if one["has_target"]:
                mask, true = made.mask(key, position), made.mask(key, position, truth=True)
                found[key, position] = float((mask & true).sum() / (mask | true).sum())
    return found


def test_numbers_pictures_and_hostile_text(made: MadeDataset, tmp_path: Path) -> None:
    (made.output / "_curation.json").write_text(
        json.dumps(
            {
                "images_in": 30,
                "phrases_in": 99,
                "funnel": [
                    {"stage": "where", "images": 24, "phrases": 80, "dropped_phrases": {"below <b>": 19}},
                    {"stage": "verdicts", "images": 20, "phrases": 70, "dropped_images": {"rejected": 4}},
                ],
            }
        )
    )
    config = ReportConfig(
        str(made.output), page=str(tmp_path / "page.html"), truth=str(made.truth), tiles=5, threads=2
    )
    summary = make_report(config)
    masks = [one for row in made.rows.values() for one in row["annotations"]]
    numbers = summary.numbers
    assert numbers.statuses == {"ok": 20, "no_phrase": 2, "error": 2}
    assert (numbers.masks, numbers.empty) == (
        sum(one["has_target"] for one in masks),
        sum(not one["has_target"] for one in masks),
    )
    scores = [one["score"] for one in masks if one["has_target"] and one["score"] is not None]
    assert numbers.quantiles["score"] == pytest.approx(np.quantile(scores, [0.05, 0.25, 0.5, 0.75, 0.95]))
    assert numbers.errors == [
        (
            "truncated_image",
            2,
            [f"{key}: {row['error']['message']}" for key, row in made.rows.items() if row["error"]],
        )
    ]
    ious = true_ious(made)
    agreement = summary.agreement
    assert agreement is not None
    assert agreement.mean_iou == pytest.approx(np.mean(list(ious.values())), abs=1e-6)
    assert agreement.no_target_accuracy == 1
    assert (agreement.compared, agreement.not_in_truth, agreement.missed) == (len(masks), 0, 0)
    assert agreement.spearman is not None
    assert agreement.spearman > 0.5

    page = Page(summary.page)
    assert page.suspicious == []
    assert HOSTILE_PHRASE in page.sections["phrases"]
    assert "19 phrases: below <b>" in page.sections["funnel"]
    assert "truncated_image" in page.sections["errors"]
    for section, count in {"sample": 5, "best": 5, "worst": 5, "worst-iou": 10, "empty": 5}.items():
        assert len(page.images[section]) == count
    assert f"{max(scores):.2f}" in page.sections["best"]
    assert f"{min(scores):.2f}" in page.sections["worst"]
    assert f"IoU {min(ious.values()):.2f}" in page.sections["worst-iou"]
    assert f"{np.mean(list(ious.values())):.2f}" in page.sections["truth"]
    assert "no target" in page.sections["empty"]
    sheet = Image.open(summary.sheet)
    assert sheet.format == "PNG"
    assert sheet.width > 1000
    assert len(sheet.convert("RGB").resize((64, 64)).getcolors(4096) or []) > 100
    again = make_report(config)
    assert again.sheet.read_bytes() == summary.sheet.read_bytes()


def test_contours_lie_on_the_mask(made: MadeDataset, tmp_path: Path) -> None:
    """Where a tile differs from its image is the mask and a line's width around it."""
    rows = [row for row in made.rows.values() if row["status"] == "ok"]
    row = {**rows[2], "annotations": rows[2]["annotations"][:1], "key": "only"}
    folder = tmp_path / "one/annotations/s"
    folder.mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist([row], schema=ANNOTATION_SCHEMA), folder / "00000.parquet")
    # Nothing says where its images may be, so none is followed.
    assert "best" not in Page(make_report(ReportConfig(str(tmp_path / "one"), threads=2)).page).images
    summary = make_report(ReportConfig(str(tmp_path / "one"), threads=2, image_root=(str(made.input),)))
    drawn = Page(summary.page).images["best"][0].convert("RGB")
    mask = made.mask(rows[2]["key"], 0)
    box = np.asarray(Image.fromarray(mask).resize(drawn.size, Image.Resampling.NEAREST))
    reference = row["image_ref"]
    with Path(reference["url"]).open("rb") as tar:
        tar.seek(reference["offset"])
        image = Image.open(io.BytesIO(tar.read(reference["length"]))).convert("RGB")
    plain = np.asarray(image.resize(drawn.size, Image.Resampling.BICUBIC), np.int16)
    changed = np.abs(np.asarray(drawn, np.int16) - plain).max(2) > 40
    assert (changed & box).sum() / box.sum() > 0.9
    assert (changed & ~box).sum() / box.sum() < 0.25


def test_evaluation_samples_bad_files_and_missing_images(tmp_path: Path) -> None:
    made = make_dataset(tmp_path, images=8, seed=1, shards=1)
    rows = [row for row in made.rows.values() if row["status"] == "ok"]
    worst: dict[str, Any] = {
        "key": "record-1",
        "shard": rows[1]["shard"],
        "image_key": rows[1]["key"],
        "image": "x",
        "phrase": rows[1]["annotations"][0]["phrase"],
        "split": "val",
        "has_target": True,
        "area": 9,
        "iou": 0.03,
    }
    others = {
        **worst,
        "image_key": rows[2]["key"],
        "phrase": rows[2]["annotations"][0]["phrase"],
        "iou": 0.97,
    }
    samples = pa.Table.from_pylist([worst, others], schema=SAMPLE_SCHEMA)
    pq.write_table(samples, made.output / "samples.parquet")
    (made.output / "annotations/shard-0000/00009.parquet").write_bytes(b"cut short")
    Path(rows[1]["image_ref"]["url"]).unlink()
    summary = make_report(ReportConfig(str(made.output), tiles=3, threads=2))
    assert summary.agreement is not None
    assert summary.agreement.mean_iou == pytest.approx(0.5)
    page = Page(summary.page)
    assert "IoU 0.03" in page.sections["worst-iou"]
    assert "00009.parquet" in page.sections["problems"]
    assert "was the input moved?" in page.sections["best"]


def test_a_damaged_mask_is_counted_and_the_rest_is_shown(tmp_path: Path) -> None:
    made = make_dataset(tmp_path, images=5, seed=2, shards=1, chunk=5)
    path = made.output / "annotations/shard-0000/00000.parquet"
    rows = pq.read_table(path).to_pylist()
    rows[1]["annotations"][0]["segmentation"]["counts"] = "1"
    rows[2]["annotations"][0]["segmentation"] = None
    rows[3]["annotations"][0]["segmentation"] = rows[1]["annotations"][1]["segmentation"]
    pq.write_table(pa.Table.from_pylist(rows, schema=ANNOTATION_SCHEMA), path)
    config = ReportConfig(str(made.output), truth=str(made.truth), tiles=5, threads=2)
    summary = make_report(config)
    assert summary.agreement is not None
    ious = true_ious(made)
    for number in (1, 2, 3):
        del ious[rows[number]["key"], 0]
    assert summary.agreement.mean_iou == pytest.approx(np.mean(list(ious.values())), abs=1e-6)
    assert (summary.agreement.broken, summary.agreement.not_in_truth) == (3, 0)
    assert "not comparable" in Page(summary.page).sections["truth"]
    assert "does not fit its size" in Page(summary.page).sections["sample"]


def test_what_it_refuses(made: MadeDataset, tmp_path: Path) -> None:
    output = str(made.output)
    other = make_dataset(tmp_path, images=2, shards=1, seed=9, hostile=False)
    for one in other.rows.values():
        one["key"] = "another"
    path = other.output / "annotations/shard-0000/00000.parquet"
    pq.write_table(pa.Table.from_pylist(list(other.rows.values()), schema=ANNOTATION_SCHEMA), path)
    bad = tmp_path / "bad/annotations"
    bad.mkdir(parents=True)
    (bad / "a.parquet").write_bytes(b"PAR1")
    page = str(tmp_path / "x.html")
    for config, says in (
        (ReportConfig(str(tmp_path / "gone")), "no such folder"),
        (ReportConfig(str(tmp_path / "bad")), "a.parquet: not a whole Parquet file"),
        (ReportConfig(output, page=page, truth=str(tmp_path / "gone")), "no such folder"),
        (ReportConfig(output, page=page, truth=str(other.output)), "keys and phrases must be the same"),
    ):
        with pytest.raises(DataError, match=re.escape(says)):
            make_report(config)
    with pytest.raises(ConfigError, match="does not exist"):
        make_report(ReportConfig(output, page=str(tmp_path / "no/page.html")))
    with pytest.raises(ConfigError, match="--tiles 0"):
        ReportConfig(output, tiles=0)
    assert not Path(page).exists()


def test_what_is_inserted_is_escaped() -> None:
    page = environment().from_string('<p class="{{ a }}">{{ b }}</p>{{ c | picture(b) }}')
    made = page.render(a='x"y', b="<b>&", c=Image.new("RGB", (2, 1)))
    assert '<p class="x&#34;y">&lt;b&gt;&amp;</p>' in made
    assert 'alt="&lt;b&gt;&amp;"' in made
    with pytest.raises(UndefinedError):
        environment().from_string("{{ nowhere }}").render()
