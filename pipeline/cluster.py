"""Joining or starting Ray, and what of it the run takes: replicas, GPUs, cores, threads."""

from __future__ import annotations

import logging
import math
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.config import ComputeConfig
from sspsam.errors import ConfigError

if TYPE_CHECKING:
    import ray.data

#: CPU cores that one reading or writing task reserves; both mostly wait for storage.
READ_CPUS = 0.5
WRITE_CPUS = 0.25
#: Left for reading and writing. Ray Data hangs in silence when replicas hold every core.
FREE_CPUS = READ_CPUS + WRITE_CPUS

_MAX_CPU_THREADS = 8
_CPUS_PER_GPU_REPLICA = 4
_POLL_SECONDS = 2.0
_PROBE_SECONDS = 3.0
GIB = 2**30


@dataclass(frozen=True)
class Allocation:
    """What the actor pool takes.

    `replicas`: (min, max); `gpus`, `cpus`, `memory_bytes`: reserved a replica; `threads`: torch's
    in a replica without a GPU, None for torch's default; `read_tasks`: readers at a time.
    """

    replicas: tuple[int, int]
    gpus: float
    cpus: float
    threads: int | None
    memory_bytes: int | None
    read_tasks: int

    def actor_pool(self) -> Any:
        """Ray Data's pool of these replicas."""
        from ray.data import ActorPoolStrategy

        low, high = self.replicas
        return ActorPoolStrategy(size=low) if low == high else ActorPoolStrategy(min_size=low, max_size=high)

    def describe(self) -> str:
        low, high = self.replicas
        count = f"{low}" if low == high else f"{low} to {high}"
        gpus = f", {self.gpus:g} GPU" if self.gpus else ""
        threads = f", {self.threads} torch threads" if self.threads else ""
        return f"{count} replica(s) of {self.cpus:g} CPU{gpus}{threads}; {self.read_tasks} readers"


def connect() -> bool:
    """Join the cluster that RAY_ADDRESS names or that runs here, else start Ray in this process.

    Returns:
        Whether Ray was started here, so that whoever called ends it.
    """
    import ray
    import ray.data

    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Without it Ray warns about CUDA_VISIBLE_DEVICES in every task that takes no GPU.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if started := not ray.is_initialized():
        ray.init(_address(), logging_level=logging.WARNING)
    for handler in logging.getLogger(ray.data.__name__).handlers:
        if isinstance(handler, logging.StreamHandler):
            handler.setLevel(logging.ERROR)  # the log files keep everything
    return started


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
    context = dataset.context
    # Every block is cut as soon as it holds something: one row, one chunk, and readers stream.
    context.target_max_block_size = 1
    context.execution_no_progress_timeout_s = stall_seconds
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    return dataset


def total_resources() -> dict[str, float]:
    """The cluster's resources now, free or not."""
    import ray

    return dict(ray.cluster_resources())


def allocate(
    compute: ComputeConfig,
    resources: Callable[[], dict[str, float]],
    growing: bool,
    say: Callable[[str], None],
) -> Allocation:
    """Fit the run to the cluster, waiting for its nodes up to `--start-timeout` if it may grow.

    Args:
        resources: the cluster's total resources now, as `ray.cluster_resources`.
        growing: false for Ray on this machine alone, whose resources will not change.

    Raises:
        ConfigError: it does not fit; the message names the flag and what there is.
    """
    end = time.monotonic() + (compute.start_timeout if growing else 0.0)
    said = ""
    try:
        while True:
            total = resources()
            try:
                return _fit(compute, total.get("CPU", 0.0), total.get("GPU", 0.0))
            except ConfigError as error:
                if time.monotonic() >= end:
                    raise
                if not said:
                    _request_nodes(_fewest(compute))
                if str(error) != said:
                    said = str(error)
                    say(f"waiting for the cluster: {said}")
            time.sleep(_POLL_SECONDS)
    finally:
        if said:
            _request_nodes([])  # the request would keep its nodes for ever; now replicas hold them


def _fewest(compute: ComputeConfig) -> list[dict[str, int]]:
    """What the fewest replicas and one reader need, as bundles of whole units."""
    low, _ = compute.replica_range() or (1, 1)
    replica = {"CPU": compute.cpus_per_replica or 1.0, "GPU": compute.gpus_per_replica or 0.0}
    whole = {name: math.ceil(amount) for name, amount in replica.items() if amount}
    return [whole] * low + [{"CPU": 1}]


def _request_nodes(bundles: list[dict[str, int]]) -> None:
    """Tell an autoscaler what to have: it starts no node that nothing waits for."""
    from ray.autoscaler.sdk import request_resources

    request_resources(bundles=bundles)


def _fit(compute: ComputeConfig, cpus: float, gpus: float) -> Allocation:
    """The allocation for a cluster of `cpus` cores and `gpus` GPUs."""
    wanted = compute.replica_range()
    per_gpu = compute.gpus_per_replica
    if per_gpu is None:
        per_gpu = 1.0 if gpus >= 1 else 0.0
    if per_gpu > 0:
        slots = math.floor(gpus / per_gpu + 1e-6)
        low, high = wanted or (max(slots, 1), max(slots, 1))
        if slots < low:
            raise ConfigError(
                f"{low} replicas of {per_gpu:g} GPU need {low * per_gpu:g} GPUs, the cluster has "
                f"{gpus:g}: lower --replicas or --gpus-per-replica (0 for CPUs), or add nodes"
            )
        share = (cpus - FREE_CPUS) / max(slots, 1)
        default = max(0.5, min(_CPUS_PER_GPU_REPLICA, math.floor(share) if share >= 1 else share))
    else:
        count = wanted[0] if wanted else max(1, math.ceil(cpus / _MAX_CPU_THREADS))
        default = float(max(1, math.floor((cpus - FREE_CPUS) / count)))
        default = min(default, _MAX_CPU_THREADS)
        low, high = wanted or (count, count)
    per_cpu = default if compute.cpus_per_replica is None else compute.cpus_per_replica
    free = cpus - low * per_cpu
    if free < FREE_CPUS:
        raise ConfigError(
            f"{low} replicas of {per_cpu:g} CPUs leave {max(free, 0):g} of {cpus:g} for reading and "
            f"writing, which need {FREE_CPUS:g}: lower --replicas or --cpus-per-replica, or add nodes"
        )
    memory = compute.memory_per_replica
    # A lone replica may use the readers' cores too: these mostly wait for storage.
    lone = high == 1 and compute.cpus_per_replica is None
    threads = round(cpus) if lone else max(1, round(per_cpu))
    return Allocation(
        replicas=(low, high),
        gpus=per_gpu,
        cpus=per_cpu,
        threads=None if per_gpu else min(threads, _MAX_CPU_THREADS),
        memory_bytes=None if memory is None else int(memory * GIB),
        read_tasks=max(1, int((free - WRITE_CPUS) / READ_CPUS)),
    )
