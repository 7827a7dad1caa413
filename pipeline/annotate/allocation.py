"""What of the cluster a run takes: replicas, GPUs, cores, threads, readers."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pipeline.annotate.annotate_config import ComputeConfig
from pipeline.annotate.cluster import NodeResources
from pipeline.annotate.watch import StallError
from sspsam.errors import ConfigError

#: CPU cores that one reading task reserves; it mostly waits for storage.
READ_CPUS = 0.5
#: Left for sealing, whose tasks reserve nothing.
_SEAL_CPUS = 0.25
#: Left by replicas. Ray Data hangs in silence when they hold every core.
FREE_CPUS = READ_CPUS + _SEAL_CPUS

_MAX_CPU_THREADS = 8
_CPUS_PER_GPU_REPLICA = 4
_POLL_SECONDS = 2.0
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

    def actor_pool(self, calls: int) -> Any:
        """Ray Data's pool of these replicas, each called from so many threads at a time."""
        from ray.data import ActorPoolStrategy

        low, high = self.replicas
        size = {"size": low} if low == high else {"min_size": low, "max_size": high}
        return ActorPoolStrategy(
            **size, max_concurrent_calls_per_actor=calls, enable_true_multi_threading=calls > 1
        )

    def describe(self) -> str:
        low, high = self.replicas
        count = f"{low}" if low == high else f"{low} to {high}"
        gpus = f", {self.gpus:g} GPU" if self.gpus else ""
        threads = f", {self.threads} torch threads" if self.threads else ""
        return f"{count} replica(s) of {self.cpus:g} CPU{gpus}{threads}; {self.read_tasks} readers"


def allocate(
    compute: ComputeConfig,
    nodes: Callable[[], dict[str, NodeResources]],
    growing: bool,
    say: Callable[[str], None],
) -> Allocation:
    """Fit the run to the cluster, waiting for its nodes up to `--start-timeout` if it may grow.

    Args:
        nodes: the resources of the cluster's nodes now, as `alive_nodes`.
        growing: false for Ray on this machine alone, whose resources will not change.

    Raises:
        ConfigError: it does not fit; the message names the flag and what there is.
    """
    end = time.monotonic() + (compute.start_timeout if growing else 0.0)
    said = ""
    try:
        while True:
            there = list(nodes().values())
            try:
                return _fit(compute, there)
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


def reallocate(
    take: Allocation,
    compute: ComputeConfig,
    nodes: Callable[[], dict[str, NodeResources]],
    growing: bool,
    say: Callable[[str], None],
) -> Allocation:
    """`take` for the nodes that there are now: the same replicas, but fewer if not as many fit.

    Waits up to `--stall-timeout` for a node that holds one; the pool grows to `take`'s most again.

    Raises:
        StallError: no node came; the message says what is missing.
    """
    low, high = take.replicas
    same = replace(
        compute,
        replicas=f"{low}:{high}",
        cpus_per_replica=take.cpus,
        gpus_per_replica=take.gpus,
        start_timeout=compute.stall_timeout,
    )
    try:
        fitted = _fit(same, list(nodes().values()))
    except ConfigError:
        try:
            fitted = allocate(replace(same, replicas=f"1:{high}"), nodes, growing, say)
        except ConfigError as error:
            waited = f"waited {compute.stall_timeout:.0f} s for nodes"
            raise StallError(f"{waited}: {error}; the same command resumes") from error
    return replace(take, replicas=fitted.replicas, read_tasks=fitted.read_tasks)


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


def _fit(compute: ComputeConfig, nodes: Sequence[NodeResources]) -> Allocation:
    """The allocation for a cluster of these nodes."""
    cpus = sum(_cpus(node) for node in nodes)
    per_gpu = compute.gpus_per_replica
    if per_gpu is None:
        per_gpu = 1.0 if sum(map(_gpus, nodes)) >= 1 else 0.0
    usual, default = _usual_on_gpus(compute, nodes, per_gpu) if per_gpu else _usual_on_cpus(compute, nodes)
    low, high = compute.replica_range() or (usual, usual)
    per_cpu = default if compute.cpus_per_replica is None else compute.cpus_per_replica
    free = cpus - low * per_cpu
    if free < FREE_CPUS:
        raise ConfigError(
            f"{low} replicas of {per_cpu:g} CPUs leave {max(free, 0):g} of {cpus:g} for reading and "
            f"sealing, which need {FREE_CPUS:g}: lower --replicas or --cpus-per-replica, or add nodes"
        )
    room = sum(_room(node, per_cpu, per_gpu) for node in nodes)
    if room < low:
        what = f"{per_cpu:g} CPUs" + (f" and {per_gpu:g} GPU" if per_gpu else "")
        raise ConfigError(
            f"the nodes have room for {room} replicas of {what}, not for {low}: lower --replicas or "
            "--cpus-per-replica, or add nodes"
        )
    memory = compute.memory_per_replica
    # A lone replica may use the readers' cores too: these mostly wait for storage.
    lone = high == 1 and compute.cpus_per_replica is None
    threads = round(max(map(_cpus, nodes))) if lone else max(1, round(per_cpu))
    return Allocation(
        replicas=(low, high),
        gpus=per_gpu,
        cpus=per_cpu,
        threads=None if per_gpu else min(threads, _MAX_CPU_THREADS),
        memory_bytes=None if memory is None else int(memory * GIB),
        read_tasks=max(1, int((free - _SEAL_CPUS) / READ_CPUS)),
    )


def _usual_on_gpus(
    compute: ComputeConfig, nodes: Sequence[NodeResources], per_gpu: float
) -> tuple[int, float]:
    """(replicas, CPUs of each) by default: all GPUs."""
    there = sum(map(_gpus, nodes))
    low = (compute.replica_range() or (1, 1))[0]
    if there < low * per_gpu:
        raise ConfigError(
            f"{low} replicas of {per_gpu:g} GPU need {low * per_gpu:g} GPUs, the cluster has {there:g}: "
            "lower --replicas or --gpus-per-replica (0 for CPUs), or add nodes"
        )
    slots = [math.floor(_gpus(node) / per_gpu + 1e-6) for node in nodes]
    count = max(1, sum(slots))
    share = (sum(map(_cpus, nodes)) - FREE_CPUS) / count
    share = min([share, *(_cpus(node) / n for node, n in zip(nodes, slots, strict=True) if n)])
    return count, max(0.5, min(_CPUS_PER_GPU_REPLICA, math.floor(share) if share >= 1 else share))


def _usual_on_cpus(compute: ComputeConfig, nodes: Sequence[NodeResources]) -> tuple[int, float]:
    """(replicas, CPUs of each) by default: one for every eight cores of a node."""
    usual = max(1, sum(math.ceil(_cpus(node) / _MAX_CPU_THREADS) for node in nodes))
    count = (compute.replica_range() or (usual, usual))[0]
    share = min((sum(map(_cpus, nodes)) - FREE_CPUS) / count, max(map(_cpus, nodes), default=0.0))
    return usual, min(float(max(1, math.floor(share))), _MAX_CPU_THREADS)


def _room(node: NodeResources, cpus: float, gpus: float) -> int:
    """How many replicas of so much fit on one node."""
    slots = _cpus(node) / cpus
    if gpus:
        slots = min(slots, _gpus(node) / gpus)
    return math.floor(slots + 1e-6)


def _cpus(node: NodeResources) -> float:
    return node.get("CPU", 0.0)


def _gpus(node: NodeResources) -> float:
    return node.get("GPU", 0.0)
