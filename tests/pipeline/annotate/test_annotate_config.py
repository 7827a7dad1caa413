"""Options: flags over YAML over defaults, and messages that name the flag."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import pytest

from jobs.annotate import parse
from pipeline.annotate import allocation, cluster
from pipeline.annotate.allocation import Allocation, _fit, allocate, reallocate
from pipeline.annotate.annotate_config import AnnotateConfig, ComputeConfig, option_fields
from pipeline.annotate.watch import StallError
from sspsam.errors import ConfigError


def test_flags_win_over_the_file_and_both_over_defaults(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(
        "input: in\noutput: out\nchunk-size: 16\nreplicas: 2:4\nembed_images: true\n"
        "storage-options: {anon: true}\nretry-errors: fetch_failed\n"
    )
    config = parse(["--config", str(file), "--chunk-size", "32", "--sample", "0.5", "other"])
    assert (config.source.input, config.output.output) == ("other", "out")
    assert (config.output.chunk_size, config.source.sample) == (32, 0.5)
    assert config.output.embed_images is True
    assert config.compute.replica_range() == (2, 4)
    assert config.source.storage_options == {"anon": True}
    assert config.output.retry_errors == "fetch_failed"
    bare = parse(["in", "out", "--retry-errors"])
    assert bare.output.retry_errors == "any"
    assert bare.output.chunk_size == "auto"
    said = bare.all_options()
    assert set(said) == set(option_fields())
    json.dumps(said)
    secret = parse(["in", "out", "--storage-options", '{"key": "k", "secret": "s3cr3t"}'])
    assert "s3cr3t" not in json.dumps(secret.all_options())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "INPUT is empty"),
        ({"input": "in"}, "OUTPUT is empty"),
        ({"chunk_size": 0}, "--chunk-size is 0"),
        ({"chunk_size": "many"}, "--chunk-size is 'many': give a whole number"),
        ({"image_timeout": "inf"}, "--image-timeout is 'inf': give a number"),
        ({"device": "gpu"}, "--device is 'gpu': give cpu, cuda or mps"),
        ({"input": "same/", "output": "same"}, "OUTPUT is INPUT"),
        ({"chunk_size": 1.5}, "--chunk-size is 1.5: not a whole number"),
        ({"sample": 0}, "--sample is 0"),
        ({"limit": -1}, "--limit"),
        ({"max_pixels": 0}, "--max-pixels"),
        ({"decode": "fast"}, "--decode"),
        ({"replicas": "4:2"}, "--replicas is '4:2'"),
        ({"gpus_per_replica": 1.5}, "--gpus-per-replica is 1.5: above 1 it must be whole"),
        ({"cpus_per_replica": 0}, "--cpus-per-replica is 0"),
        ({"storage_options": "{"}, "--storage-options is '{'"),
        ({"storage_options": "[1]"}, "--storage-options is not a JSON object"),
        ({"embed_images": "perhaps"}, "--embed-images is 'perhaps'"),
        ({"overwrite": True, "retry_errors": "any"}, "--retry-errors"),
        ({"format": "zip"}, "--format is 'zip', not one of auto, tar"),
        ({"max_phrases": 0}, "--max-phrases"),
        ({"phrase_detail": "much"}, "--phrase-detail is 'much', not one of head, modifiers, full"),
        ({"colour": "red"}, "no such option: colour; `sspsam annotate --help` lists them"),
        ({"chunksize": 8}, "no such option: chunksize; did you mean chunk_size?"),
    ],
)
def test_what_cannot_work_is_named(given: dict[str, object], message: str) -> None:
    complete = {"input": "in", "output": "out"} if "input" not in given and given else {}
    with pytest.raises(ConfigError) as caught:
        AnnotateConfig.from_options(complete | given)
    assert message in str(caught.value)


def test_replicas_leave_room_for_reading_and_writing() -> None:
    def fit(cpus: float, gpus: float = 0, **options: object) -> tuple[object, ...]:
        take = _fit(ComputeConfig(**options), [{"CPU": cpus, "GPU": gpus}])  # type: ignore[arg-type]
        assert take.replicas[0] * take.cpus + 0.75 <= cpus
        return take.replicas, take.gpus, take.cpus, take.threads

    assert fit(2) == ((1, 1), 0, 1, 2)  # a laptop: the lone replica's torch takes both cores
    assert fit(64) == ((8, 8), 0, 7, 7)
    assert fit(8, 1) == ((1, 1), 1, 4, None)
    assert fit(48, 4, gpus_per_replica=0.5) == ((8, 8), 0.5, 4, None)
    assert fit(16, 2, replicas="1:6") == ((1, 6), 1, 4, None)
    for cpus, gpus, given, message in (
        (2, 0, {"replicas": "2"}, "leave 0 of 2 for reading"),
        (1, 0, {}, "leave 0 of 1 for reading"),
        (8, 0, {"gpus_per_replica": 1}, "need 1 GPUs, the cluster has 0"),
        (8, 2, {"replicas": "3:4"}, "need 3 GPUs, the cluster has 2"),
    ):
        with pytest.raises(ConfigError, match=message):
            fit(cpus, gpus, **given)


def test_replicas_fit_on_nodes_one_by_one() -> None:
    def fit(nodes: list[tuple[float, float]], **options: object) -> tuple[object, ...]:
        there = [{"CPU": cpus, "GPU": gpus} for cpus, gpus in nodes]
        take = _fit(ComputeConfig(**options), there)  # type: ignore[arg-type]
        return take.replicas, take.gpus, take.cpus, take.threads

    assert fit([(2, 0), (2, 0)]) == ((2, 2), 0, 1, 1)  # not one replica of three cores
    assert fit([(2, 0), (4, 0)], replicas="1") == ((1, 1), 0, 4, 4)
    assert fit([(16, 0), (4, 4)]) == ((4, 4), 1, 1, None)  # the GPUs' own node has four cores
    assert fit([(8, 0), (8, 1), (8, 1)]) == ((2, 2), 1, 4, None)
    for nodes, given, message in (
        ([(1, 0), (1, 0)], {"cpus_per_replica": 1.2, "replicas": "1"}, "room for 0 replicas of 1.2 CPUs"),
        ([(2, 0), (8, 1)], {"cpus_per_replica": 9, "gpus_per_replica": 1}, "of 9 CPUs and 1 GPU"),
        ([(8, 1), (8, 1)], {"gpus_per_replica": 2}, "room for 0 replicas"),
    ):
        with pytest.raises(ConfigError, match=message):
            fit(nodes, **given)


def test_a_smaller_cluster_gets_the_same_replicas_but_fewer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocation, "_request_nodes", lambda bundles: None)
    monkeypatch.setattr(allocation, "_POLL_SECONDS", 0.0)
    compute = ComputeConfig(stall_timeout=60.0)
    whole = {name: {"CPU": 8.0, "GPU": 2.0} for name in "abc"}
    take = allocate(compute, lambda: whole, True, print)
    assert take.replicas == (6, 6)

    def again(*states: dict[str, dict[str, float]]) -> Allocation:
        return reallocate(take, compute, functools.partial(next, iter(states)), True, said.append)

    said: list[str] = []
    assert again(whole) == take
    assert not said
    fewer = again({"a": whole["a"]}, {"a": whole["a"]})
    assert fewer.replicas == (1, 6)  # the pool may grow when nodes come back
    assert (fewer.gpus, fewer.cpus, fewer.threads) == (take.gpus, take.cpus, take.threads)
    head = {"head": {"CPU": 2.0}}
    assert again(head, head, head, whole).replicas == (1, 6)
    assert "the cluster has 0" in said[0]
    with pytest.raises(StallError, match=r"waited 0 s for nodes: .* the cluster has 0"):
        reallocate(take, ComputeConfig(stall_timeout=1e-3), lambda: head, True, said.append)


def test_waits_for_nodes_and_takes_its_request_back(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[dict[str, int]]] = []
    said: list[str] = []
    monkeypatch.setattr(allocation, "_request_nodes", asked.append)
    monkeypatch.setattr(allocation, "_POLL_SECONDS", 0.0)
    sizes = ({"CPU": 0.0}, {"CPU": 8.0}, {"CPU": 16.0, "GPU": 2.0})
    states = iter([{"a": size} for size in sizes])
    wanted = ComputeConfig(replicas="2:8", gpus_per_replica=1, cpus_per_replica=3.5)
    take = allocate(wanted, lambda: next(states), True, said.append)
    assert (take.replicas, take.gpus, take.cpus) == ((2, 8), 1, 3.5)
    assert asked == [[{"CPU": 4, "GPU": 1}] * 2 + [{"CPU": 1}], []]
    assert "the cluster has 0" in said[0]
    with pytest.raises(ConfigError, match="the cluster has 0"):  # alone, nothing will come
        allocate(wanted, lambda: {"a": {"CPU": 8.0}}, False, said.append)
    assert len(asked) == 2


def test_the_address_of_a_dead_cluster_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    from ray._private import utils

    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as alive:
        address = f"127.0.0.1:{alive.getsockname()[1]}"
        monkeypatch.setattr(utils, "read_ray_address", lambda: address)
        assert cluster._address() is None
    assert cluster._address() == "local"
    monkeypatch.setattr(utils, "read_ray_address", lambda: None)
    assert cluster._address() is None
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert cluster._address() is None


def test_a_ray_that_does_not_come_up_is_an_error_with_its_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    def busy(*_: object, **__: object) -> None:
        raise Exception("The current node timed out during startup.")

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray, "init", busy)
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    with pytest.raises(cluster.ClusterError, match=r"timed out during startup.*RAY_ADDRESS"):
        cluster.connect()
