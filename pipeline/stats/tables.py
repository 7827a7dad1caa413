"""Statistics as tables for a terminal."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table


def print_summary(found: dict[str, Any], console: Console) -> None:
    """Print what `summarise` found."""
    console.print(
        _pairs(
            found["dataset"],
            {
                "images": _count(found["images"]),
                **{f"  {name.replace('_', ' ')}": _count(number) for name, number in found["status"].items()},
                **{f"  split {name}": _count(number) for name, number in found["splits"].items()},
                "phrases": _count(found["phrases"]),
                "  with a target": _count(found["masks"]),
                "  without": _count(found["no_target"]),
                "  truncated": _count(found["truncated"]),
                "different phrases": _count(found["vocabulary"]["different"]),
                "  seen once": _count(found["vocabulary"]["seen_once"]),
                "masks an image": _number(found["masks_an_image"]["mean"]),
                "pixels covered": _share(found["coverage"]["mean_covered"]),
                "  more than once": _share(found["coverage"]["mean_covered_twice"]),
                "  measured on": f"{found['coverage']['images']:,} images",
            },
        )
    )
    if found["errors"]:
        table = _table("errors", ("kind", "images", "example"), left=(0, 2))
        for kind, error in found["errors"].items():
            example = f"{error['example'].get('key')}: {error['example'].get('message')}"
            table.add_row(_text(kind), _count(error["images"]), _text(example))
        console.print(table)
    signals = {name: one for name, one in found["signals"].items() if one["known"]}
    if signals:
        names = list(next(iter(signals.values()))["quantiles"])
        table = _table("signals of masks with a target", ("", "known", "mean", *names), left=(0,))
        for name, one in signals.items():
            values = [_number(value) for value in (one["mean"], *one["quantiles"].values())]
            table.add_row(name, _count(one["known"]), *values)
        console.print(table)
    columns = ("phrase", "count", "with target", "mean score", "mean area", "example")
    table = _table("most frequent phrases", columns, left=(0, 5))
    for one in found["vocabulary"]["top"]:
        table.add_row(
            _text(one["phrase"]),
            _count(one["count"]),
            _count(one["with_target"]),
            _number(one["mean_score"]),
            _share(one["mean_area_share"]),
            _text(str(one["example_key"])),
        )
    console.print(table)


def print_comparison(found: dict[str, Any], console: Console) -> None:
    """Print what `compare` found."""
    images, phrases, targets = found["images"], found["phrases"], found["targets"]
    console.print(
        _pairs(
            f"{found['first']} (first) and {found['second']} (second)",
            {
                "images in both": _count(images["both"]),
                "images only in first, second": f"{images['only_first']:,}, {images['only_second']:,}",
                "phrases in both": _count(phrases["both"]),
                "  only in first": _count(phrases["only_first"]),
                "  only in second": _count(phrases["only_second"]),
                "agree on the target": _share(found["target_agreement"]),
                "  a target in both, neither": f"{targets['both']:,}, {targets['neither']:,}",
                "  in first only, second only": f"{targets['only_first']:,}, {targets['only_second']:,}",
                "masks compared": _count(found["masks_compared"]),
                "  identical": _count(found["identical"]),
                **{f"  IoU {least} or more": _count(n) for least, n in found["iou_at_least"].items()},
                "mean IoU": _number(found["mean_iou"]),
                "cumulative IoU": _number(found["cumulative_iou"]),
                **({"broken masks": _count(found["masks_broken"])} if found["masks_broken"] else {}),
                **{f"status {name}": _count(n) for name, n in found["status"].items() if "->" in name},
            },
        )
    )
    for name, title in (("frequent", "IoU of the most frequent phrases"), ("lowest", "lowest IoU by phrase")):
        table = _table(title, ("phrase", "pairs", "mean IoU"), left=(0,))
        for one in found["iou_by_phrase"][name]:
            table.add_row(_text(one["phrase"]), _count(one["count"]), _number(one["mean_iou"]))
        console.print(table)
    table = _table("changed most", ("image", "phrase", "IoU", "score", "area"), left=(0, 1))
    for one in found["changed_most"]:
        scores, areas = (
            " → ".join(
                _number(one[side][of]) if of == "score" else _count(one[side][of])
                for side in ("first", "second")
            )
            for of in ("score", "area")
        )
        table.add_row(
            _text(f"{one['shard']}/{one['key']}"), _text(one["phrase"]), _number(one["iou"]), scores, areas
        )
    console.print(table)


def _pairs(title: str, rows: dict[str, str]) -> Table:
    table = Table(title=_text(title), title_justify="left", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for name, value in rows.items():
        table.add_row(_text(name), value)
    return table


def _table(title: str, columns: tuple[str, ...], left: tuple[int, ...]) -> Table:
    table = Table(title=title, title_justify="left")
    for at, name in enumerate(columns):
        text = at in left and name
        table.add_column(name, justify="left" if at in left else "right", overflow="fold", no_wrap=not text)
    return table


def _text(value: str) -> str:
    """A text of strangers: neither markup nor control characters reach the terminal."""
    return escape("".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in value))


def _count(number: int) -> str:
    return f"{number:,}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3f}"
