"""The page in a real browser: filters, overlays, verdicts, keyboard, phones, hostile text."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from playwright.sync_api import Page, expect

from pipeline.dataset.annotation_dataset import read_reviews
from pipeline.dataset.opening import open_dataset
from pipeline.report import ReportConfig, make_report
from sspsam.schema import ANNOTATION_SCHEMA
from tests.pipeline.annotation_fixture import HOSTILE_PHRASE, MadeDataset, make_dataset
from tests.pipeline.view.conftest import running

OpenPage = Callable[..., Page]


def keys(page: Page) -> list[str]:
    """Keys of the cards in the grid, in order, once it has settled."""
    expect(page.locator("#grid.loading")).to_have_count(0)
    return [str(card.get_attribute("data-key")) for card in page.locator("#grid .card").all()]


def settle(page: Page, count: int, noun: str = "image") -> None:
    expect(page.locator("#count")).to_have_text(
        re.compile(rf"^(\S+ of )?{count} {noun}{'' if count == 1 else 's'}$")
    )


def overlay(page: Page) -> np.ndarray:
    """(rows, columns) bool: where the canvas over the large image is painted in a mask's colour."""
    data = page.evaluate(
        """() => { const canvas = document.getElementById('detail-canvas');
        const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
        let bits = ''; for (let i = 0; i < data.length; i += 4)
            bits += data[i] || data[i + 1] || data[i + 2] ? '1' : '0';
        return [canvas.height, canvas.width, bits]; }"""
    )
    return np.frombuffer(data[2].encode(), np.uint8).reshape(data[0], data[1]) == ord("1")


def scaled(mask: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    size = (shape[1], shape[0])
    return np.asarray(Image.fromarray(mask.astype(np.uint8) * 255).resize(size, Image.Resampling.NEAREST)) > 0


def iou(first: np.ndarray, second: np.ndarray) -> float:
    return float((first & second).sum() / (first | second).sum())


def test_filter_toggle_reject_reload(  # noqa: PLR0915 - one visit, from filter to verdict
    tmp_path: Path, open_page: OpenPage
) -> None:
    made = make_dataset(tmp_path, images=24, seed=3)
    drawn = {
        (key, position): annotation
        for key, row in made.rows.items()
        for position, annotation in enumerate(row["annotations"])
    }
    with running(made.output) as url:
        page = open_page(url)
        settle(page, 24)
        assert keys(page) == list(made.rows)

        # Filters: text, selects, a range; the address holds them.
        page.fill("#phrase", "ring")
        ringed = {key for (key, _), one in drawn.items() if "ring" in one["phrase"]}
        settle(page, len(ringed))
        assert set(keys(page)) == ringed
        page.select_option("[name=status]", "ok")
        page.fill("fieldset.range >> nth=0 >> input >> nth=0", "0.8")
        good = {
            key
            for (key, _), one in drawn.items()
            if "ring" in one["phrase"] and one["has_target"] and (one["score"] or 0) >= 0.8
        }
        settle(page, len(good))
        assert set(keys(page)) == good
        assert "phrase=ring" in page.url
        assert "min_score=0.8" in page.url
        page.fill("#phrase", "no such phrase")
        settle(page, 0)
        page.locator("#grid").get_by_role("button", name="Clear all filters").click()
        settle(page, 24)

        # Worst first, a card a mask.
        page.locator(".segments").get_by_text("Masks").click()
        page.select_option("[name=sort]", "score")
        settle(page, len(drawn), "mask")
        scores = [one["score"] for one in drawn.values() if one["has_target"] and one["score"]]
        first = page.locator("#grid .card .value").first
        expect(first).to_have_text(f"{min(scores):.2f}")
        page.locator(".segments").get_by_text("Images").click()
        page.select_option("[name=sort]", "order")
        settle(page, 24)

        # One mask by itself lies where the file says, to the pixel that the screen has.
        page.locator('[data-key="0000-00001"]').click()
        page.keyboard.press("m")
        assert not overlay(page).any()
        for position in (0, 1):
            page.keyboard.press(str(position + 1))
            painted = overlay(page)
            assert iou(painted, scaled(made.mask("0000-00001", position), painted.shape)) > 0.97
            page.locator(f"[aria-label^='Show mask {position + 1}:']").uncheck()
            assert not overlay(page).any()
        row = made.rows["0000-00001"]
        marked = page.locator("#detail-caption mark").all_text_contents()
        assert marked == [one["phrase"] for one in row["annotations"] if one["start"] is not None]
        expect(page.locator("#detail-caption")).to_have_text(row["caption"])

        # A click on the picture chooses the mask under it; its signals appear.
        page.keyboard.press("m")
        box = page.locator("#detail-canvas").bounding_box()
        assert box is not None
        ys, xs = np.nonzero(made.mask("0000-00001", 0) & ~made.mask("0000-00001", 1))
        scale = min(box["width"] / row["width"], box["height"] / row["height"])
        left = box["x"] + (box["width"] - row["width"] * scale) / 2
        top = box["y"] + (box["height"] - row["height"] * scale) / 2
        middle = len(xs) // 2
        page.mouse.click(left + (xs[middle] + 0.5) * scale, top + (ys[middle] + 0.5) * scale)
        chosen = page.locator("#mask-list li.chosen")
        expect(chosen).to_contain_text(row["annotations"][0]["phrase"])
        expect(chosen).to_contain_text("predicted IoU")

        # Reject three by keyboard: this mask, the next image, and one after an undone accept.
        page.keyboard.press("r")
        page.keyboard.press("j")
        page.keyboard.press("r")
        page.keyboard.press("ArrowRight")
        page.keyboard.press("a")
        page.keyboard.press("a")
        page.keyboard.press("r")
        expect(page.locator(".verdict.reject")).to_have_attribute("aria-pressed", "true")
        page.keyboard.press("Escape")
        expect(page.locator("#detail")).to_be_hidden()
        page.wait_for_selector("html:not([data-storing])")  # else the page asks before it is left

        page.reload()
        page.wait_for_selector("html[data-ready]")
        page.select_option("[name=verdict]", "reject")
        settle(page, 3)
        assert keys(page) == ["0000-00001", "0000-00002", "0000-00003"]
        expect(page.locator('[data-key="0000-00002"] .badge')).to_have_text("rejected")
        page.locator('[data-key="0000-00001"]').click()
        expect(page.locator("#mask-list .badge")).to_have_text("rejected")

    stored = read_reviews(open_dataset(str(made.output))).to_pylist()
    phrase = row["annotations"][0]["phrase"]
    assert [(one["key"], one["phrase"], one["verdict"]) for one in stored] == [
        ("0000-00001", phrase, "reject"),
        ("0000-00002", None, "reject"),
        ("0000-00003", None, "reject"),
    ]
    assert not list((made.output / "reviews").glob(".*"))


def test_bad_files_and_hostile_text_are_shown_as_text(tmp_path: Path, open_page: OpenPage) -> None:
    made = make_dataset(tmp_path, images=8, seed=1, shards=1)
    folder = made.output / "annotations" / "shard-0000"
    rows: list[dict[str, Any]] = [dict(row) for row in list(made.rows.values())[1:3]]
    for row, counts in zip(rows, ("1", "\u00ff<b>"), strict=True):
        row["shard"] = "damaged"
        first = row["annotations"][0]
        broken = {**first, "segmentation": {**first["segmentation"], "counts": counts}}
        row["annotations"] = [broken, *row["annotations"][1:]]
        row["image_ref"] = {**row["image_ref"], "url": str(made.output / "gone <i>.tar")}
    damaged = made.output / "annotations" / "damaged"
    damaged.mkdir()
    pq.write_table(pa.Table.from_pylist(rows, schema=ANNOTATION_SCHEMA), damaged / "00000.parquet")
    whole = (folder / "00000.parquet").read_bytes()
    (folder / "00007.parquet").write_bytes(whole[: len(whole) // 2])
    pq.write_table(pa.table({"a": [1]}), folder / "00008.parquet")
    (folder / "00009.parquet").write_bytes(b"<script>alert(1)</script>")
    with running(made.output) as url:
        page = open_page(url)
        problems = page.locator("#notices .problem")
        expect(problems).to_contain_text("3 files cannot be used; the rest is shown.")
        for name in ("00007", "00008", "00009"):
            expect(problems).to_contain_text(f"{name}.parquet")
        expect(problems).to_contain_text("no column 'key'")
        settle(page, 10)
        faults = page.locator(".card .fault")
        expect(faults.filter(has_text="was the input moved?")).to_have_count(2)
        expect(
            page.locator(".card .fault")
            .filter(has_text="truncated_image")
            .or_(page.locator(".card .fault").filter(has_text="ends after 400 bytes"))
        ).to_have_count(1)
        page.locator("[data-key='0000-00001']").first.click()
        page.locator("#mask-list .pick").nth(1).click()
        expect(page.locator("#mask-list .fault")).to_contain_text("Mask not drawn: the RLE covers 1 of")
        page.keyboard.press("j")
        page.locator("#mask-list .pick").nth(1).click()
        expect(page.locator("#mask-list .fault")).to_contain_text("Mask not drawn: the RLE is damaged")
        page.keyboard.press("Escape")
        page.fill("#phrase", f'"{HOSTILE_PHRASE[:30]}"')
        page.fill("#phrase", "onerror alert(1)")
        settle(page, 1)
        page.locator(".card").click()
        expect(page.locator("#detail-caption mark").first).to_have_text(HOSTILE_PHRASE)
        expect(page.locator("#mask-list .name").nth(1)).to_have_text(HOSTILE_PHRASE)
        assert page.title() == "SSP-SAM view"
        assert page.locator("#detail img").count() == 1


def test_markup_and_bidi_controls_in_every_name_turn_nothing_else(
    tmp_path: Path, open_page: OpenPage
) -> None:
    """Key, shard, phrase and caption that end in RIGHT-TO-LEFT OVERRIDE, in the viewer and in the report."""
    made = make_dataset(tmp_path, images=2, seed=1, shards=1, hostile=False)
    mark = "<img src=x onerror=alert(1)>\u202e"
    row = dict(next(iter(made.rows.values())))
    row |= {"key": f"key {mark}", "shard": f"shard {mark}", "caption": f"a thing {mark}"}
    row["annotations"] = [{**row["annotations"][0], "phrase": f"thing {mark}", "start": 2, "end": None}]
    (path,) = made.output.rglob("*.parquet")
    pq.write_table(pa.Table.from_pylist([row], schema=ANNOTATION_SCHEMA), path)
    place = """([element, text]) => { const walk = document.createTreeWalker(element, NodeFilter.SHOW_TEXT);
        for (let node; (node = walk.nextNode());) { const at = node.data.indexOf(text);
            if (at >= 0) { const range = document.createRange(); range.setStart(node, at);
                range.setEnd(node, at + text.length); const box = range.getBoundingClientRect();
                return [box.top, box.left]; } } }"""

    def stand_in_order(page: Page, inside: str, *texts: str) -> None:
        element = page.locator(inside).first.element_handle()
        places = [page.evaluate(place, [element, text]) for text in texts]
        assert None not in places
        assert places == sorted(places), (inside, texts, places)

    with running(made.output) as url:
        page = open_page(url)
        settle(page, 1)
        assert keys(page) == [row["key"]]
        stand_in_order(page, "#grid .card .key", "key", "shard")
        page.locator(".card").click()
        expect(page.locator("#detail-title")).to_have_text(row["key"])
        expect(page.locator("#detail-meta")).to_contain_text(row["shard"])
        stand_in_order(page, "#detail-meta", "shard", "#0", "px", "ok")
        expect(page.locator("#mask-list .name").nth(1)).to_contain_text(mark)
        assert page.locator("#detail img").count() == 1
        report = make_report(ReportConfig(str(made.output), page=str(tmp_path / "page.html"), threads=2))
        other = page.context.new_page()
        other.goto(Path(report.page).as_uri())
        stand_in_order(other, "article .quiet", "key", "·", "shard")
        assert other.locator("img[src=x]").count() == 0


def test_phone_dark_keyboard_and_screen_reader(made: MadeDataset, open_page: OpenPage) -> None:
    with running(made.output) as url:
        page = open_page(url, 390, 844, dark=True)
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        dark = Image.open(io.BytesIO(page.screenshot())).convert("L").resize((1, 1)).getpixel((0, 0))
        assert isinstance(dark, int)
        assert dark < 110
        page.get_by_role("button", name="Filters").click()
        expect(page.get_by_label("Status")).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        page.get_by_label("Status").select_option("error")
        settle(page, 2)
        expect(page.get_by_role("button", name="Filters · 1")).to_be_visible()
        page.get_by_label("Status").select_option("")
        settle(page, 24)

        snapshot = page.locator("body").aria_snapshot()
        for landmark in ("banner", "search", "complementary", "main", "navigation", "status"):
            assert f"- {landmark}" in snapshot, landmark
        unnamed = page.evaluate(
            """() => [...document.querySelectorAll('button, input, select')].filter((element) =>
            !element.labels?.length && !element.getAttribute('aria-label') && !element.textContent.trim())
            .map((element) => element.outerHTML)"""
        )
        assert unnamed == []

        # Keyboard alone: into the grid, along it, a verdict, open, choose a mask, close.
        page.keyboard.press("j")
        page.keyboard.press("ArrowRight")
        page.keyboard.press("ArrowDown")
        focused = page.evaluate("document.activeElement.dataset.key")
        assert focused == "0000-00003"
        page.keyboard.press("f")
        expect(page.locator(f'[data-key="{focused}"]')).to_have_attribute("data-verdict", "flag")
        expect(page.locator("#announce")).to_have_text(f"{focused} flagged")
        page.keyboard.press("Enter")
        expect(page.get_by_role("dialog")).to_be_visible()
        dialog = page.locator("#detail").bounding_box()
        assert dialog is not None
        assert (dialog["x"], dialog["width"]) == (0, 390)
        assert page.evaluate("document.querySelector('#detail').scrollWidth") <= 390
        for name in ("Accept", "Reject", "Flag", "Next", "Previous", "Close"):
            button = page.get_by_role("button", name=name).last.bounding_box()
            assert button is not None
            assert 0 <= button["x"] <= button["x"] + button["width"] <= 390, name
        page.keyboard.press("ArrowDown")
        expect(page.locator("#mask-list .pick[aria-pressed=true]")).to_contain_text(
            made.rows[focused]["annotations"][0]["phrase"]
        )
        page.keyboard.press("z")
        assert "scale" in page.locator("#frame").evaluate("element => element.style.transform")
        page.keyboard.press("z")
        page.keyboard.press("f")  # takes nothing back: this is the mask, the flag is the image's
        page.keyboard.press("Escape")
        assert page.evaluate("document.activeElement.dataset.key") == focused
        page.go_forward()
        expect(page.locator("#detail-title")).to_have_text(focused)
