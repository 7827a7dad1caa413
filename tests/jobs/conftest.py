"""What the tests of the commands share: a local Ray for all runs of a file."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

# Before Ray is imported: the same setting on every side, and never a cluster of somebody else.
os.environ["RAY_AUTH_MODE"] = "disabled"
os.environ["RAY_ADDRESS"] = "local"


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """One local Ray of two CPUs, unless there is one already."""
    import ray

    ours = not ray.is_initialized()
    if ours:
        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=2**28)
    yield
    if ours:
        ray.shutdown()
