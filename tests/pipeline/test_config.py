"""Options: flags over YAML over defaults, and messages that name the flag."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from jobs.annotate import options
from pipeline.cluster import _fit
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
        ({"chunk_size": "many"}, "--chunk-size is 'many'"),
        ({"chunk_size": 1.5}, "--chunk-size is 1.5: not a whole number"),
        ({"sample": 0}, "--sample is 0"),
        ({"limit": -1}, "--limit"),
        ({"replicas": "4:2"}, "--replicas is '4:2'"),
        ({"gpus_per_replica": 1.5}, "--gpus-per-replica is 1.5: above 1 it must be whole"),
        ({"cpus_per_replica": 0}, "--cpus-per-replica is 0"),
        ({"storage_options": "{"}, "--storage-options is '{'"),
        ({"storage_options": "[1]"}, "--storage-options is not a JSON object"),
        ({"embed_images": "perhaps"}, "--embed-images is 'perhaps'"),
        ({"overwrite": True, "retry_errors": "any"}, "--retry-errors"),
        ({"format": "zip"}, "--format is 'zip'"),
        ({"max_phrases": 0}, "--max-phrases"),
        ({"colour": "red"}, "no such option: colour"),
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
