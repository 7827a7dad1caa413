"""Joining or starting Ray, its nodes, and what a chain of chunks needs of Ray Data."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from sspsam.errors import SSPSAMError

if TYPE_CHECKING:
    import ray.data

_PROBE_SECONDS = 3.0

#: What one node has, free or not: CPU, GPU, memory, ...
NodeResources = dict[str, float]


class ClusterError(SSPSAMError):
    """Ray cannot be started or joined."""

    kind = "cluster"


def connect() -> bool:
    """Join the cluster that RAY_ADDRESS names or that runs here, else start Ray in this process.

    Whoever handles SIGTERM still does so afterwards: Ray's handlers end the process by SIGABRT.

    Returns:
        Whether Ray was started here, so that whoever called ends it.

    Raises:
        ClusterError: neither can be done.
    """
    import ray
    import ray.data

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Without it Ray warns about CUDA_VISIBLE_DEVICES in every task that takes no GPU.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if started := not ray.is_initialized():
        on_sigterm = signal.getsignal(signal.SIGTERM)
        # How to opt out of tokens is no news of a Ray that ends with us; that there are none, Ray still says.
        notices = logging.getLogger("ray._private.authentication.authentication_token_setup")
        notices.addFilter(_not_about_tokens)
        try:
            ray.init(_address(), logging_level=logging.WARNING)
        except Exception as error:  # Ray raises that, or what the system says
            ray.shutdown()  # else what has come up stays, and the next call would join it
            raise ClusterError(
                f"Ray could not be started or joined ({error}): the same command again, on a machine that is "
                "less busy, or with RAY_ADDRESS set to a cluster that runs (`local` for none)"
            ) from error
        finally:
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, on_sigterm)
    for handler in logging.getLogger(ray.data.__name__).handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.setLevel(logging.CRITICAL)  # the job says what failed; the log files keep everything
    return started


def _not_about_tokens(record: logging.LogRecord) -> bool:
    return "Token authentication is enabled" not in record.getMessage()


@contextmanager
def connected() -> Iterator[None]:
    """Within the block Ray is there. It ends Ray if `connect` started it."""
    import ray

    local = connect()
    try:
        yield
    finally:
        if local:
            ray.shutdown()


def may_grow() -> bool:
    """Whether the Ray that `connect` left us with may get more nodes: a cluster may, our own may not."""
    import ray

    node = ray._private.worker._global_node
    return node is None or not node.is_head()


def _address() -> str | None:
    """What `ray.init` is told: None lets RAY_ADDRESS or the cluster that runs here decide.

    A cluster that died without `ray stop` leaves its address behind, and Ray would try to reach it for
    many minutes; then a Ray of our own is started instead.
    """
    from ray._private.utils import read_ray_address

    if os.environ.get("RAY_ADDRESS"):
        return None
    host, _, port = (read_ray_address() or "").rpartition(":")
    if not host:
        return None
    try:
        socket.create_connection((host, int(port)), timeout=_PROBE_SECONDS).close()
    except OSError:
        return "local"
    return None


def settle_context(dataset: ray.data.Dataset, stall_seconds: float) -> ray.data.Dataset:
    """Set what a chain of chunks needs of Ray Data, for this dataset alone.

    `stall_seconds`: it ends, and frees its replicas, when no block moves for so long.
    """
    from pipeline.annotate.execution import HoldExecutor

    context = dataset.context
    # Every block is cut as soon as it holds something: one row of chunks, and readers stream.
    context.target_max_block_size = 1
    context.execution_no_progress_timeout_s = stall_seconds
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.custom_execution_callback_classes = [HoldExecutor]
    return dataset


def total_resources() -> dict[str, float]:
    """The cluster's resources now, free or not."""
    import ray

    return dict(ray.cluster_resources())


def alive_nodes() -> dict[str, NodeResources]:
    """The resources of each node that is alive, by its id."""
    import ray

    return {node["NodeID"]: dict(node["Resources"]) for node in ray.nodes() if node["Alive"]}
