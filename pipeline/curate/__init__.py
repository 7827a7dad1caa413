"""Cut, merge, balance and split an annotation dataset. `curate(source, destination, config)`.

Two readings: the first decides what each image alone can decide (`per_image`) and writes the
survivors' few numbers to a scratch folder; DuckDB then decides what needs the whole dataset
(`near_duplicates`, `caps`), spilling to disk; the second reading writes. Reads are never changed.
"""

from pipeline.curate.curate_config import CurateConfig, CurateResources
from pipeline.curate.curate_run import curate

__all__ = ["CurateConfig", "CurateResources", "curate"]
