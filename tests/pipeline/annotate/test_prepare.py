"""What is decided before Ray starts, and what replicas are told."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.annotate import dry_run as dry
from pipeline.annotate.annotate_config import AnnotateConfig
from pipeline.annotate.prepare import Allocation, as_begun, fingerprint, open_output, prepare
from pipeline.annotate.replica_speed import first_chunk
from pipeline.dataset.store import Store
from sspsam.errors import ConfigError, DecompressionBombError, UnknownModelError
from sspsam.open_models.named import hub_commit
from tests.hub_server import Hub
from tests.pipeline.annotate.inputs import picture, write_shards

ONE_CPU = Allocation(replicas=(1, 1), gpus=0.0, cpus=1.0, threads=1, memory_bytes=None, read_tasks=1)


@pytest.fixture
def given(tmp_path: Path, micro_model: Path) -> dict[str, Any]:
    source = write_shards(tmp_path / "in", shards=1, samples=2)
    return {"input": str(source), "output": str(tmp_path / "out"), "model": str(micro_model)}


def test_replicas_are_told_device_threads_and_the_limit_of_pixels(given: dict[str, Any]) -> None:
    job = prepare(AnnotateConfig.from_options(given | {"max_pixels": "7000"}))
    segmenter = job.segmenter_for(ONE_CPU)()
    assert segmenter.model.device.type == "cpu"
    (result,) = segmenter.segment_images([picture(1)], [["dog"]])  # 96 x 80 pixels
    assert isinstance(result.error, DecompressionBombError)
    usual = prepare(AnnotateConfig.from_options(given)).segmenter_for(ONE_CPU)()
    assert usual.segment_images([picture(1)], [["dog"]])[0].error is None


def test_a_gpu_that_is_not_there_is_refused_before_replicas_start(given: dict[str, Any]) -> None:
    job = prepare(AnnotateConfig.from_options(given | {"device": "cuda"}))
    with pytest.raises(ConfigError, match="--device cuda, but a replica gets no GPU"):
        job.segmenter_for(ONE_CPU)


def test_a_dry_run_knows_of_a_missing_model_without_ray(
    given: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dry, "connected", lambda: pytest.fail("Ray was started"))
    with pytest.raises(UnknownModelError, match="no model 'nosuch'"):
        dry.dry_run(AnnotateConfig.from_options(given | {"model": "nosuch", "dry_run": True}))


def test_a_dry_run_says_which_images_get_no_phrases_and_why(given: dict[str, Any]) -> None:
    job = prepare(AnnotateConfig.from_options(given | {"phrases": "column:nosuch"}))
    samples = first_chunk(job, 2).samples
    phrases, (failed, why) = dry.ask(
        job.phrase_source, [*samples, replace(samples[0], error=("kind", "why"))]
    )
    assert (phrases, failed) == ([[], [], []], 2)
    assert "--phrases column:nosuch" in why
    assert dry.ask(lambda some: [["dog"] for _ in some], samples) == ([["dog"], ["dog"]], (0, ""))


def test_the_manifest_has_the_commit_that_a_branch_stood_for(
    hub: Hub, given: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of SSP-SAM and of other open models; the weights need not be loaded for it."""
    commit = hub.push("org/one", {"m.pth": b"weights", "config.json": b"{}", "a.safetensors": b"w"})
    config = AnnotateConfig.from_options(given | {"model": "hf://org/one/m.pth"})
    job = prepare(config)
    manifest, _ = open_output(Store(config.output.output, {}), job, fingerprint(job))
    assert manifest.model["commit"] == commit
    hub.push("org/one", {"m.pth": b"other weights"})
    assert hub_commit("hf://org/one/m.pth", manifest.model["sha256"]) == commit
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert hub_commit(f"grounded-sam:org/one@{commit}+{given['input']}", "") == f"{commit}+-"


def test_a_dataset_older_than_the_options_of_phrases_goes_on_as_it_began(given: dict[str, Any]) -> None:
    config = AnnotateConfig.from_options(given)
    store = Store(config.output.output, {})
    new = as_begun(config, store)
    assert prepare(new).phrase_source.reader.proper_names == "generic"
    open_output(store, prepare(new), "0" * 64)
    manifest = json.loads(store.get("_run.json") or b"")
    for name in ("phrase_detail", "proper_names", "language"):
        del manifest["options"][name]
    store.put("_run.json", json.dumps(manifest).encode())

    begun = as_begun(config, store)
    source = prepare(begun).phrase_source
    assert (source.reader.detail, source.reader.proper_names) == ("full", "keep")
    open_output(store, prepare(begun), "0" * 64)
    for flag, value in (("phrase_detail", "head"), ("proper_names", "drop")):
        changed = as_begun(AnnotateConfig.from_options(given | {flag: value}), store)
        with pytest.raises(ConfigError, match=f"--{flag.replace('_', '-')} was .*, now '{value}'"):
            open_output(store, prepare(changed), "0" * 64)
    with pytest.raises(ConfigError, match="--phrase-detail is 'some', not one of head, modifiers, full"):
        prepare(AnnotateConfig.from_options(given | {"phrase_detail": "some"}))
