"""Tables on a narrow terminal: no number and no name is cut."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len
from rich.console import Console

from pipeline.dataset.opening import open_dataset
from pipeline.stats import compare, summarise
from pipeline.stats.tables import print_comparison, print_summary
from tests.pipeline.annotation_fixture import make_dataset

MANY = 12_345_678


@pytest.mark.parametrize("columns", [40, 80])
def test_no_number_and_no_name_is_cut(tmp_path: Path, columns: int) -> None:
    made = make_dataset(tmp_path, images=12, shards=2)
    output, truth = open_dataset(str(made.output)), open_dataset(str(made.truth))
    summary, changes = summarise(output, top=3), compare(output, truth, top=3)
    names, numbers = [], [f"{MANY:,}"]
    for number, (name, one) in enumerate(summary["signals"].items()):
        one["known"] = MANY
        one["quantiles"] = dict.fromkeys(one["quantiles"], 0.1 + number / 50)
        one["mean"] = MANY - number if name == "area" else 0.5
        numbers += [f"{0.1 + number / 50:.3f}", *([f"{MANY - number:,}"] if name == "area" else [])]
        names.append(name)
    first = summary["vocabulary"]["top"][0]
    first |= {"phrase": "the [bold]dog\x1b[2J chasing", "count": MANY}
    first["example_key"] = "part-00017/000123456789"
    names += ["[bold]dog\N{REPLACEMENT CHARACTER}[2J", "part-00017/000123456789"]
    names += [f"{one['shard']}/{one['key']}" for one in changes["changed_most"]]
    numbers += [f"{one['first']['area']:,} → {one['second']['area']:,}" for one in changes["changed_most"]]
    printed = printed_by(print_summary, summary, columns) + printed_by(print_comparison, changes, columns)
    for wanted in (*names, *numbers):
        assert wanted in printed
    assert max(map(cell_len, printed.splitlines())) <= columns


def printed_by(show: Any, found: dict[str, Any], columns: int) -> str:
    console = Console(width=columns, color_system=None, highlight=False)
    with console.capture() as printed:
        show(found, console)
    return printed.get()
