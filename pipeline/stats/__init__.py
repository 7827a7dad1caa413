"""What is in an annotation dataset, and how two differ. `summarise(dataset)`, `compare(first, second)`."""

from pipeline.stats.compare import compare
from pipeline.stats.dataset_summary import summarise

__all__ = ["compare", "summarise"]
