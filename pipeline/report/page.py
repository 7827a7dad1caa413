"""The HTML page: the template `templates/report.html.jinja` over the numbers and tiles."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from pipeline.dataset.numerals import number, percent, reasons
from pipeline.dataset.truth import Agreement
from pipeline.report.numbers import Numbers, PhraseRow
from pipeline.report.tiles import Section
from sspsam.known_models import caveat

STYLE = Path(__file__).parent / "static" / "report.css"
_CHARTS = (
    ("score", "score"),
    ("predicted_iou", "predicted IoU"),
    ("stability", "stability"),
    ("box_agreement", "box agreement"),
    ("clip_score", "CLIP score"),
    ("agreement", "agreement of models"),
    ("p_correct", "P(correct)"),
    ("area", "area, px (log)"),
    ("area_fraction", "share of the image"),
)


@dataclass(frozen=True)
class Content:
    """The data of the page."""

    url: str
    model: dict[str, Any]  # of _run.json
    curation: dict[str, Any] | None  # _curation.json
    problems: Sequence[tuple[str, str]]  # files that could not be read
    numbers: Numbers
    agreement: Agreement | None
    verdicts: dict[str, int]
    sections: Sequence[Section]
    frequent: Sequence[PhraseRow]
    weak: Sequence[PhraseRow]


@dataclass(frozen=True)
class Chart:
    """One histogram: counts of equal bins between two ends."""

    label: str
    counts: list[int]
    ends: tuple[str, str]


def environment() -> Environment:
    """Templates of the report: what is inserted is escaped, a name that is not there is an error."""
    found = Environment(
        loader=PackageLoader("pipeline.report"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    found.filters |= {"number": number, "percent": percent, "picture": picture, "hex": _hex}
    return found


def render(content: Content) -> str:
    """The whole page."""
    name = content.model.get("name")
    made = f"report of {datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC"
    return (
        environment()
        .get_template("report.html.jinja")
        .render(
            content=content,
            caveat=caveat(content.model),
            style=Markup(STYLE.read_text(encoding="utf-8")),
            made=" · ".join(filter(None, [name and f"model {name}", made])),
            counts=_counts(content),
            agreement=_agreement(content.agreement) if content.agreement else [],
            charts=list(_charts(content.numbers)),
            funnel=_funnel(content.curation) if content.curation else [],
        )
    )


def picture(image: Image.Image, alt: str) -> Markup:
    """An image inside the page, as JPEG."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=82, optimize=True)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return Markup(
        '<img src="data:image/jpeg;base64,{}" alt="{}" loading="lazy" width="{}" height="{}">'
    ).format(data, alt, image.width, image.height)


def _hex(colour: tuple[int, int, int]) -> str:
    return "#" + bytes(colour).hex()


def _counts(content: Content) -> list[tuple[str, Any, str]]:
    numbers = content.numbers
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
    return tiles


def _agreement(agreement: Agreement) -> list[tuple[str, Any, str]]:
    tiles = [
        ("mean IoU", agreement.mean_iou, f"{agreement.missed:,} targets missed count as 0"),
        ("no-target accuracy", agreement.no_target_accuracy, "left empty where nothing is"),
        ("score ~ IoU", agreement.spearman, "Spearman's rank correlation"),
        ("compared", agreement.compared, f"phrases; {agreement.not_in_truth:,} have no truth"),
    ]
    if agreement.broken:
        tiles.append(("not comparable", agreement.broken, "phrases with a damaged mask"))
    return tiles


def _charts(numbers: Numbers) -> Iterator[Chart]:
    for measure, label in _CHARTS:
        spread = numbers.histograms.get(measure)
        if spread is None or spread["low"] is None:
            continue
        quantiles = numbers.quantiles[measure]
        show = _show_area if measure == "area" else number
        median = f", median {show(quantiles[2])}" if quantiles else ""
        yield Chart(f"{label}{median}", spread["counts"], (show(spread["low"]), show(spread["high"])))
    if numbers.masks_an_image:
        largest = numbers.masks_an_image[-1][0]
        most = min(30, largest)
        counts = [0] * (most + 1)
        for masks, images in numbers.masks_an_image:
            counts[min(masks, most)] += images
        yield Chart("masks an image", counts, ("0", f"{most}" + (" or more" if largest > most else "")))


def _show_area(value: float) -> str:
    return f"{math.floor(value + 0.5):,}"


def _funnel(curation: dict[str, Any]) -> list[dict[str, Any]]:
    """The input and each stage: images and phrases kept, and why the others went."""
    units = ("images", "phrases")
    steps: list[dict[str, Any]] = [
        {"stage": "input", "reasons": []} | {unit: int(curation.get(f"{unit}_in") or 0) for unit in units}
    ]
    for stage in curation.get("funnel") or []:
        kept = {unit: int(stage.get(unit) or 0) for unit in units}
        steps.append({"stage": str(stage.get("stage")), "reasons": reasons(stage)} | kept)
    return steps
