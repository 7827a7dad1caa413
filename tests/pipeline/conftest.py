"""What the tests of the annotate job share: a Ray of their own."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

# Before Ray is imported anywhere: one setting on every side, and never a cluster of somebody else.
os.environ["RAY_AUTH_MODE"] = "disabled"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_ADDRESS"] = "local"


@pytest.fixture(scope="session")
def local_ray() -> Iterator[None]:
    """Ray in this process with two CPUs; ended with the session."""
    import ray

    ray.init(address="local", num_cpus=2, include_dashboard=False, object_store_memory=2**28)
    yield
    ray.shutdown()
