"""Numbers as people read them, the same in the report, its contact sheet and tables."""

from __future__ import annotations


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
