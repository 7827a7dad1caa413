"""The HTML page: sections over the numbers and tiles. No script, no outside request."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from pipeline.report.html import Markup, bar, histogram, join, number, percent, picture, table, tag
from pipeline.report.numbers import Numbers, PhraseRow
from pipeline.report.tiles import Section, Tile
from pipeline.report.truth import Agreement

STYLE = Path(__file__).parent / "static" / "report.css"
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_CHARTS = (
    ("score", "score"),
    ("predicted_iou", "predicted IoU"),
    ("stability", "stability"),
    ("box_agreement", "box agreement"),
    ("clip_score", "CLIP score"),
    ("area", "area, px (log)"),
    ("area_fraction", "share of the image"),
)


@dataclass(frozen=True)
class Content:
    """Everything that the page shows."""

    url: str
    run: dict[str, Any] | None  # _run.json
    curation: dict[str, Any] | None  # _curation.json
    problems: Sequence[tuple[str, str]]  # files that could not be read
    numbers: Numbers
    agreement: Agreement | None
    verdicts: dict[str, int]
    sections: Sequence[Section]
    frequent: Sequence[PhraseRow]
    weak: Sequence[PhraseRow]


def render(content: Content) -> str:
    """The whole page."""
    parts = [
        _header(content),
        _problems(content),
        _truth(content.agreement),
        *(_gallery(section) for section in content.sections),
        _charts(content.numbers),
        _phrases(content),
        _errors(content.numbers),
        _funnel(content.curation),
    ]
    links = [
        *([("truth", "Against the truth")] if content.agreement else []),
        *((section.name, section.title) for section in content.sections),
        ("distributions", "Distributions"),
        ("phrases", "Phrases"),
        ("errors", "Errors"),
        *([("funnel", "Funnel")] if content.curation else []),
    ]
    navigation = tag("nav", *(tag("a", text, href=f"#{name}") for name, text in links), aria_label="Sections")
    head = join(
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("title", f"Annotations: {content.url}"),
        tag("style", Markup(STYLE.read_text(encoding="utf-8"))),
    )
    body = tag("body", parts[0], navigation, tag("main", *parts[1:]))
    return f'<!doctype html>\n<html lang="en"><head>{head}</head>{body}</html>\n'


def _header(content: Content) -> Markup:
    numbers = content.numbers
    model = (content.run or {}).get("model") or {}
    made = f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC"
    name = model.get("name") if isinstance(model, dict) else model
    line = " · ".join(filter(None, [name and f"model {name}", f"report of {made}"]))
    score = numbers.quantiles["score"]
    tiles = [
        ("images", numbers.images, f"in {numbers.shards:,} shards"),
        ("masks", numbers.masks, f"{numbers.phrases:,} distinct phrases"),
        ("no target", numbers.empty, f"of {numbers.masks + numbers.empty:,} phrases"),
        ("no phrase", numbers.statuses["no_phrase"], "images"),
        ("errors", numbers.statuses["error"], "images"),
        ("median score", score[2] if score else None, "of masks"),
    ]
    if content.verdicts:
        said = ", ".join(f"{count:,} {name}" for name, count in sorted(content.verdicts.items()))
        tiles.append(("verdicts", sum(content.verdicts.values()), said))
    return tag(
        "header",
        tag("h1", "Annotations"),
        tag("p", content.url, class_="where"),
        tag("p", line, class_="quiet"),
        _figures(tiles),
    )


def _figures(tiles: list[tuple[str, Any, str]]) -> Markup:
    return tag(
        "dl",
        *(
            tag("div", tag("dt", name), tag("dd", number(value), tag("small", note)))
            for name, value, note in tiles
        ),
        class_="figures",
    )


def _problems(content: Content) -> Markup | None:
    if not content.problems:
        return None
    items = (tag("li", message) for _, message in content.problems[:20])
    title = f"{len(content.problems):,} files could not be read and are left out"
    return tag("section", tag("h2", title), tag("ul", *items), class_="problem")


def _truth(agreement: Agreement | None) -> Markup | None:
    if agreement is None:
        return None
    tiles = [
        ("mean IoU", agreement.mean_iou, f"{agreement.missed:,} targets missed count as 0"),
        ("no-target accuracy", agreement.no_target_accuracy, "left empty where nothing is"),
        ("score ~ IoU", agreement.spearman, "Spearman's rank correlation"),
        ("compared", agreement.compared, f"phrases; {agreement.not_in_truth:,} have no truth"),
    ]
    if agreement.broken:
        tiles.append(("not comparable", agreement.broken, "phrases with a damaged mask"))
    return _section("truth", "Against the truth", None, _figures(tiles))


def _section(name: str, title: str, about: str | None, *children: Markup | None) -> Markup:
    note = tag("p", about, class_="quiet") if about else None
    return tag("section", tag("h2", title), note, *children, id=name)


def _gallery(section: Section) -> Markup:
    if not section.tiles:
        return _section(section.name, section.title, section.about, tag("p", "There are none."))
    tiles = tag("div", *(_tile(tile) for tile in section.tiles), class_="tiles")
    return _section(section.name, section.title, section.about, tiles)


def _tile(tile: Tile) -> Markup:
    alt = f"{tile.key}: " + "; ".join(f"{line.phrase} {line.value}" for line in tile.lines)
    shown: list[Markup] = []
    if tile.fault or tile.picture is None:
        shown = [tag("p", tile.fault or "no picture", class_="fault")]
    else:
        shown = [picture(tile.picture, alt)]
        if tile.truth is not None:
            shown = [
                tag("div", shown[0], tag("span", "model")),
                tag("div", picture(tile.truth, f"{tile.key}: the true mask"), tag("span", "truth")),
            ]
    lines = (
        tag(
            "li",
            tag("i", class_="swatch", style=_swatch(line.colour, line.has_target)),
            tag("span", line.phrase, class_="phrase"),
            tag("span", line.value, class_="value"),
        )
        for line in tile.lines
    )
    caption = tag("p", tile.caption, class_="caption") if tile.caption else None
    where = tag("p", f"{tile.key} · {tile.shard}", class_="quiet")
    kind = "tile pair" if len(shown) > 1 else "tile"
    return tag(
        "article",
        tag("div", *shown, class_="media"),
        tag("div", tag("ul", *lines), caption, where, class_="text"),
        class_=kind,
    )


def _swatch(colour: tuple[int, int, int], filled: bool) -> str:
    code = "#" + bytes(colour).hex()
    return f"border-color:{code}" + (f";background:{code}" if filled else "")


def _charts(numbers: Numbers) -> Markup:
    charts = []
    for measure, label in _CHARTS:
        spread = numbers.histograms[measure]
        if spread["low"] is None:
            continue
        quantiles = numbers.quantiles[measure]
        show = _show_area if measure == "area" else number
        median = f", median {show(quantiles[2])}" if quantiles else ""
        ends = (show(spread["low"]), show(spread["high"]))
        charts.append(histogram(spread, f"{label}{median}", ends))
    if numbers.masks_an_image:
        most = min(30, max(masks for masks, _ in numbers.masks_an_image))
        counts = [0] * (most + 1)
        for masks, images in numbers.masks_an_image:
            counts[min(masks, most)] += images
        last = f"{most}" + (" or more" if numbers.masks_an_image[-1][0] > most else "")
        charts.append(histogram({"counts": counts}, "masks an image", ("0", last)))
    about = "Over all masks that have a target."
    return _section("distributions", "Distributions", about, tag("div", *charts, class_="charts"))


def _show_area(value: float) -> str:
    return f"{math.floor(value + 0.5):,}"


def _phrases(content: Content) -> Markup:
    truth = content.agreement is not None
    tables = [_phrase_table(content.frequent, "Most frequent", truth)]
    if content.weak:
        tables.append(
            _phrase_table(content.weak, "Lowest mean score, of phrases with at least 5 masks", truth)
        )
    return _section("phrases", "Phrases", None, *tables)


def _phrase_table(rows: Sequence[PhraseRow], caption: str, truth: bool) -> Markup:
    most = max((row.images for row in rows), default=1)
    head = ["phrase", "images", "masks", "mean score", "median share"] + (["mean IoU"] if truth else [])
    cells: list[list[Any]] = [
        [
            row.phrase,
            bar(row.images / most, number(row.images)),
            number(row.masks),
            number(row.score),
            percent(row.share),
            *([number(row.iou)] if truth else []),
        ]
        for row in rows
    ]
    return table(head, cells, numeric={1, 2, 3, 4, 5}, caption=caption)


def _errors(numbers: Numbers) -> Markup:
    rows: list[list[Any]] = [
        [kind, number(count), join(*(tag("div", example) for example in examples))]
        for kind, count, examples in numbers.errors
    ]
    rows += [[reason, number(count), "images without a phrase"] for reason, count in numbers.no_phrase]
    if not rows:
        return _section("errors", "Errors", None, tag("p", "Every image was annotated."))
    head = ["reason", "images", "examples"]
    return _section("errors", "Errors", None, table(head, rows, numeric={1}, caption="Images without masks"))


def _funnel(curation: dict[str, Any] | None) -> Markup | None:
    if not curation:
        return None
    most = {unit: max(int(curation.get(f"{unit}_in") or 0), 1) for unit in ("images", "phrases")}

    def bars(step: dict[str, Any], suffix: str = "") -> list[Markup]:
        counts = {unit: int(step.get(f"{unit}{suffix}") or 0) for unit in most}
        return [bar(counts[unit] / most[unit], number(counts[unit])) for unit in most]

    rows: list[list[Any]] = [["input", *bars(curation, "_in"), ""]]
    for stage in curation.get("funnel") or []:
        reasons = [
            f"{count:,} {unit}: {reason.replace('_', ' ')}"
            for unit in ("images", "phrases")
            for reason, count in (stage.get(f"dropped_{unit}") or {}).items()
        ]
        reasons += [
            f"{count:,} {what.replace('_', ' ')}"
            for what, count in (stage.get("changed_phrases") or {}).items()
        ]
        rows.append([str(stage.get("stage")), *bars(stage), ", ".join(reasons)])
    head = ["stage", "images kept", "phrases kept", "reasons"]
    title = "Curation funnel"
    return _section("funnel", title, None, table(head, rows, numeric={1, 2}, caption="What each stage kept"))
