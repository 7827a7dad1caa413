"""What is decided before Ray starts, and what replicas are told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.annotate import dry_run as dry
from pipeline.annotate.annotate_config import AnnotateConfig
from pipeline.annotate.prepare import Allocation, prepare
from sspsam.errors import ConfigError, DecompressionBombError, UnknownModelError
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
    monkeypatch.setattr(dry, "connect", lambda: pytest.fail("Ray was started"))
    with pytest.raises(UnknownModelError, match="no model 'nosuch'"):
        dry.dry_run(AnnotateConfig.from_options(given | {"model": "nosuch", "dry_run": True}))
