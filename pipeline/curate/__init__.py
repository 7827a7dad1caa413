"""Cut, merge, balance and split an annotation dataset. `curate(source, destination, config)`.

Two passes: the first decides what depends on one image alone (`per_image`) and writes a few numbers of the
survivors to a scratch folder; DuckDB then decides what depends on the whole dataset (`whole`,
`near_duplicates`), spilling to disk; the second pass writes. The source is never changed.
"""

from pipeline.curate.curate_config import CurateConfig, CurateResources
from pipeline.curate.curate_run import curate

__all__ = ["CurateConfig", "CurateResources", "curate"]
