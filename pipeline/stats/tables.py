"""Statistics as tables for a terminal."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text


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
    if missing := found["unfinished"]:
        parts = f", in part {', '.join(missing['parts'])}" if missing["parts"] else ""
        console.print(
            f"{missing['shards']:,} of {missing['of']:,} shards are not finished{parts}: "
            "`sspsam annotate` resumes them",
            markup=False,
            highlight=False,
        )
    rows: list[tuple[str, ...]]
    if found["errors"]:
        rows = [
            (kind, _count(one["images"]), f"{one['example'].get('key')}: {one['example'].get('message')}")
            for kind, one in found["errors"].items()
        ]
        _print(console, "errors", ("kind", "images", "example"), rows, left=(0, 2), wraps=2)
    signals = {name: one for name, one in found["signals"].items() if one["known"]}
    if signals:
        quantiles = next(iter(signals.values()))["quantiles"]
        rows = [
            (name, _count(one["known"]), *map(_number, (one["mean"], *one["quantiles"].values())))
            for name, one in signals.items()
        ]
        columns = ("", "known", "mean", *quantiles)
        _print(console, "masks with a target: mean and quantiles", columns, rows, left=(0,), wraps=None)
    columns = ("phrase", "count", "with target", "mean score", "mean area", "example")
    rows = [
        (
            one["phrase"],
            _count(one["count"]),
            _count(one["with_target"]),
            _number(one["mean_score"]),
            _share(one["mean_area_share"]),
            str(one["example_key"]),
        )
        for one in found["vocabulary"]["top"]
    ]
    _print(console, "most frequent phrases", columns, rows, left=(0, 5))


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
        rows = [
            (one["phrase"], _count(one["count"]), _number(one["mean_iou"]))
            for one in found["iou_by_phrase"][name]
        ]
        _print(console, title, ("phrase", "pairs", "mean IoU"), rows, left=(0,))
    changes = []
    for one in found["changed_most"]:
        scores, areas = (
            " → ".join(
                _number(one[side][of]) if of == "score" else _count(one[side][of])
                for side in ("first", "second")
            )
            for of in ("score", "area")
        )
        changes.append((f"{one['shard']}/{one['key']}", one["phrase"], _number(one["iou"]), scores, areas))
    columns = ("image", "phrase", "IoU", "score", "area")
    _print(console, "changed most", columns, changes, left=(0, 1), wraps=1)


def _pairs(title: str, rows: dict[str, str]) -> Table:
    table = Table(title=_text(title), title_justify="left", show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for name, value in rows.items():
        table.add_row(_text(name), value)
    return table


def _print(
    console: Console,
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    left: Collection[int],
    wraps: int | None = 0,
) -> None:
    """One table; if it is wider than the console with narrower gaps too, several that share the first column.

    Nothing where there are no rows.

    left: columns of text.  wraps: the one that may be broken between words; names and numbers are not.
    """

    if not rows:
        return

    def table(shown: Sequence[int]) -> Table:
        found = Table(
            title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, gap, 0, 0)
        )
        for at in shown:
            cells = (columns[at], *(row[at] for row in rows))
            pieces = " ".join(cells).split() if at == wraps else cells
            least = min(max(map(cell_len, pieces), default=0), console.width)
            found.add_column(
                columns[at],
                justify="left" if at in left else "right",
                overflow="fold",
                min_width=least,
                no_wrap=at != wraps and least < console.width,
            )
        for row in rows:
            found.add_row(*(_text(row[at]) for at in shown))
        return found

    def needs(shown: Sequence[int]) -> int:
        return Measurement.get(console, console.options.update(width=10_000), table(shown)).minimum

    gap = 1
    if needs(range(len(columns))) > console.width:
        gap = 0
    groups = [[0]]
    for at in range(1, len(columns)):
        if len(groups[-1]) > 1 and needs([*groups[-1], at]) > console.width:
            groups.append([0])
        groups[-1].append(at)
    for shown in groups:
        console.print(table(shown))


def _text(value: str) -> Text:
    """A text of strangers: neither markup nor control characters reach the terminal."""
    return Text("".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in value))


def _count(number: int) -> str:
    return f"{number:,}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3f}"
