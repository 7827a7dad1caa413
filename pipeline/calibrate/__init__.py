"""Learns from labelled masks how probable each mask is to be right: `sspsam calibrate`."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.calibrate.calibrate_run import apply, calibrate

__all__ = ["apply", "calibrate"]


def __getattr__(name: str) -> Any:
    """Both when asked for: what is learnt from arrays (`fit`) needs no database."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("pipeline.calibrate.calibrate_run"), name)
