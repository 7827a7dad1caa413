"""The annotate job. `job.py` is the chain; its stages stand beside it: plan, read, segment, write, watch.

`pipeline.annotate(config)` is the job and `pipeline.annotate` is also this folder, so the folder can
be called.
"""

from __future__ import annotations

import sys
import types
from typing import Any


class _CallableFolder(types.ModuleType):
    def __call__(self, *args: Any, **options: Any) -> Any:
        """See `pipeline.annotate.job.annotate`."""
        from pipeline.annotate.job import annotate

        return annotate(*args, **options)


sys.modules[__name__].__class__ = _CallableFolder
