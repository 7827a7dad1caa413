"""Numbers and counts as text, the same in the report, its contact sheet and tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def number(value: float | None, digits: int = 2) -> str:
    """A count with separators, or a fraction; "–" for None."""
    if value is None:
        return "–"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.{digits}f}"


def percent(value: float | None) -> str:
    """A share of 1 as per cent with two figures that count."""
    if value is None:
        return "–"
    return f"{value * 100:.1f} %" if value >= 0.01 else f"{value * 100:.2g} %"


def reasons(step: Mapping[str, Any]) -> list[str]:
    """What one step of a curation's funnel (`_curation.json`) dropped and changed, and why."""
    lines = [
        f"{count:,} {unit}: {reason.replace('_', ' ')}"
        for unit in ("images", "phrases")
        for reason, count in (step.get(f"dropped_{unit}") or {}).items()
    ]
    changed = (step.get("changed_phrases") or {}).items()
    return lines + [f"{count:,} {what.replace('_', ' ')}" for what, count in changed]
