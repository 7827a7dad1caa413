"""Options: flags over YAML over defaults, and messages that name the flag."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobs.annotate import options
from pipeline import cluster
from pipeline.cluster import _fit, allocate
from pipeline.config import AnnotateConfig, ComputeConfig, option_fields
from sspsam.errors import ConfigError


def test_flags_win_over_the_file_and_both_over_defaults(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(
        "input: in\noutput: out\nchunk-size: 16\nreplicas: 2:4\nembed_images: true\n"
        "storage-options: {anon: true}\nretry-errors: fetch_failed\n"
    )
    given = options(["--config", str(file), "--chunk-size", "32", "--sample", "0.5", "other"])
    config = AnnotateConfig.from_options(given)
    assert (config.source.input, config.output.output) == ("other", "out")
    assert (config.output.chunk_size, config.source.sample) == (32, 0.5)
    assert config.output.embed_images is True
    assert config.compute.replica_range() == (2, 4)
    assert config.source.storage_options == {"anon": True}
    assert config.output.retry_errors == "fetch_failed"
    bare = AnnotateConfig.from_options(options(["in", "out", "--retry-errors"]))
    assert bare.output.retry_errors == "any"
    assert bare.output.chunk_size == 64
    said = bare.all_options()
    assert set(said) == set(option_fields())
    json.dumps(said)
    secret = options(["in", "out", "--storage-options", '{"key": "k", "secret": "s3cr3t"}'])
    assert "s3cr3t" not in json.dumps(AnnotateConfig.from_options(secret).all_options())


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
        ({"replicas": "4:2"}, "--replicas is '4:2'"),
        ({"gpus_per_replica": 1.5}, "--gpus-per-replica is 1.5: above 1 it must be whole"),
        ({"cpus_per_replica": 0}, "--cpus-per-replica is 0"),
        ({"storage_options": "{"}, "--storage-options is '{'"),
        ({"storage_options": "[1]"}, "--storage-options is not a JSON object"),
        ({"embed_images": "perhaps"}, "--embed-images is 'perhaps'"),
        ({"overwrite": True, "retry_errors": "any"}, "--retry-errors"),
        ({"format": "zip"}, "--format is 'zip'"),
        ({"max_phrases": 0}, "--max-phrases"),
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
        take = _fit(ComputeConfig(**options), cpus, gpus)  # type: ignore[arg-type]
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


def test_waits_for_nodes_and_takes_its_request_back(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[dict[str, int]]] = []
    said: list[str] = []
    monkeypatch.setattr(cluster, "_request_nodes", asked.append)
    monkeypatch.setattr(cluster, "_POLL_SECONDS", 0.0)
    states = iter([{"CPU": 0.0}, {"CPU": 8.0}, {"CPU": 16.0, "GPU": 2.0}])
    wanted = ComputeConfig(replicas="2:8", gpus_per_replica=1, cpus_per_replica=3.5)
    take = allocate(wanted, lambda: next(states), True, said.append)
    assert (take.replicas, take.gpus, take.cpus) == ((2, 8), 1, 3.5)
    assert asked == [[{"CPU": 4, "GPU": 1}] * 2 + [{"CPU": 1}], []]
    assert "the cluster has 0" in said[0]
    with pytest.raises(ConfigError, match="the cluster has 0"):  # alone, nothing will come
        allocate(wanted, lambda: {"CPU": 8.0}, False, said.append)
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
