"""What is in an annotation dataset, and how two differ: `summarise`, `compare`, `agree`."""

from pipeline.stats.agreement import agree
from pipeline.stats.compare import compare
from pipeline.stats.dataset_summary import summarise

__all__ = ["agree", "compare", "summarise"]
