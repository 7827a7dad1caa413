"""Tables of what a calibration was judged to be, for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.table import Table

_PARTS = {"target": "masks", "no_target": "phrases without a target"}


def judged_table(judged: Mapping[str, Any]) -> Iterator[Table | str]:
    """For each part a table of its probabilities, and one that compares them with each signal alone."""
    for part, told in _PARTS.items():
        numbers = judged[part]
        if "p_correct" not in numbers:
            yield f"{told}: {numbers['phrases']:,} labels are too few, so p_correct is null"
            continue
        table = Table("probability", "right", "ECE", "Brier", "AURC", title=told, title_justify="left")
        for name in ("p_correct", "p_correct_75"):
            if name in numbers:
                one = numbers[name]
                table.add_row(name, *(f"{one[key]:.4f}" for key in ("right", "ece", "brier", "aurc")))
        yield table
        table = Table("alone", "AURC of IoU < 0.5", "Spearman", title_justify="left")
        for name, one in numbers["alone"].items():
            rank = one["spearman"]
            table.add_row(name, f"{one['aurc']:.4f}", "-" if rank is None else f"{rank:.3f}")
        yield table
