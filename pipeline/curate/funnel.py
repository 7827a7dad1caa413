"""The funnel of a curation: what each stage kept and dropped, with the reason of every drop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pipeline.dataset.numerals import reasons
from pipeline.dataset.phrase_rows import Counts


def funnel(stages: Sequence[str], counts: Counts, images: int, phrases: int) -> list[dict[str, Any]]:
    """The stages in order, as `_curation.json` holds them. images, phrases: what went in."""
    steps = []
    for stage in stages:
        dropped = {unit: _of(counts, stage, f"dropped_{unit}") for unit in ("images", "phrases")}
        images -= sum(dropped["images"].values())
        phrases -= sum(dropped["phrases"].values())
        steps.append(
            {
                "stage": stage,
                "images": images,
                "phrases": phrases,
                "dropped_images": dropped["images"],
                "dropped_phrases": dropped["phrases"],
                "changed_phrases": _of(counts, stage, "changed_phrases"),
            }
        )
    return steps


def print_funnel(manifest: dict[str, Any], console: Console) -> None:
    """Draw the funnel of a `_curation.json` as a table."""
    table = Table(title=escape(f"{manifest['source']} → {manifest['dest']}"), title_justify="left")
    for name, justify in (("stage", "left"), ("images", "right"), ("phrases", "right"), ("dropped", "left")):
        table.add_column(name, justify=justify, overflow="fold")  # type: ignore[arg-type]
    table.add_row("input", f"{manifest['images_in']:,}", f"{manifest['phrases_in']:,}", "")
    for step in manifest["funnel"]:
        table.add_row(
            escape("".join(one if one.isprintable() else " " for one in step["stage"])),
            f"{step['images']:,}",
            f"{step['phrases']:,}",
            "\n".join(reasons(step)),
        )
    for name, split in manifest["splits"].items():
        table.add_row(f"split {name}", f"{split['images']:,}", f"{split['phrases']:,}", "")
    console.print(table)
    if "guarantee" in manifest:
        console.print(escape(manifest["guarantee"]["statement"]))


def _of(counts: Counts, stage: str, what: str) -> dict[str, int]:
    """Reasons with their counts, the most frequent first."""
    found = {key[2]: count for key, count in counts.items() if key[:2] == (stage, what) and count}
    return dict(sorted(found.items(), key=lambda pair: (-pair[1], pair[0])))
