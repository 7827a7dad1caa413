"""The annotation pipeline on Ray Data, and what works on the datasets it writes.

>>> import pipeline
>>> pipeline.annotate(config)  # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.annotate.annotate_config import AnnotateConfig
    from pipeline.annotate.annotator import Annotator
    from pipeline.annotate.job import annotate
    from pipeline.annotate.run_summary import RunSummary

__all__ = ["AnnotateConfig", "Annotator", "RunSummary", "annotate"]

_HOMES = {
    "AnnotateConfig": "pipeline.annotate.annotate_config",
    "Annotator": "pipeline.annotate.annotator",
    "RunSummary": "pipeline.annotate.run_summary",
    "annotate": "pipeline.annotate.job",
}


def __getattr__(name: str) -> Any:
    """Import on first use, so that reading a dataset needs neither Ray nor torch."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
