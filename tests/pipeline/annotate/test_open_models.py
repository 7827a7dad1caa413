"""The annotate job with models that are not SSP-SAM, and every command that works on its output."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads
import pytest

import pipeline
from pipeline.annotate.annotate_config import AnnotateConfig
from pipeline.annotate.job import annotate
from pipeline.curate import CurateConfig, curate
from pipeline.dataset.opening import open_dataset
from pipeline.export import ExportConfig, export
from pipeline.report import ReportConfig, make_report
from pipeline.stats import compare, summarise
from sspsam.errors import ConfigError
from sspsam.inference.masks import decode_rle
from sspsam.schema import SIGNALS
from tests.pipeline.annotate.inputs import picture, sample_members, two_phrases, write_tar
from tests.pipeline.annotate.open_model_faults import KILLER, RAISER
from tests.sspsam.open_models import tiny

# Models are loaded ten times and five processes die: minutes, so `make chaos`.
pytestmark = [pytest.mark.usefixtures("local_ray"), pytest.mark.timeout(900), pytest.mark.chaos]


def configure(source: Path, output: Path, model: str, **options: Any) -> AnnotateConfig:
    defaults = {"chunk_size": 4, "device": "cpu", "cpus_per_replica": 1, "replicas": 1, "stall_timeout": 300}
    given = {"input": str(source), "output": str(output), "model": model}
    return AnnotateConfig.from_options(defaults | given | options)


def rows(output: Path) -> dict[str, dict[str, Any]]:
    table = pads.dataset(output / "annotations", format="parquet").to_table()
    return {row["key"]: row for row in table.to_pylist()}


def work_with(output: Path, other: Path, folder: Path, lacking: set[str]) -> None:
    """Everything that reads an annotation dataset, on one whose model lacks some signals."""
    dataset = open_dataset(str(output))
    told = summarise(dataset)
    assert {name for name in SIGNALS if not told["signals"][name]["known"]} == lacking
    same = compare(dataset, open_dataset(str(other)))
    assert same["images"]["both"] == dataset.rows
    assert same["phrases"]["both"] > 0
    assert not set(same["signal_change"]) & lacking
    make_report(ReportConfig(str(output)))
    assert (output / "report.html").stat().st_size > 10_000
    kept = curate(str(output), str(folder / "kept"), CurateConfig(where="score > 0.1", min_target_pixels=9))
    assert kept["phrases_out"] > 0
    export(str(folder / "kept"), str(folder / "coco"), ExportConfig(format="coco"))
    assert list((folder / "coco").rglob("*.json"))


def test_a_model_by_module_and_factory(tmp_path: Path) -> None:
    source, output = tmp_path / "in", tmp_path / "out"
    members = dict(sample_members(0, 14))
    members["000003.jpg"] = picture(3, KILLER)
    members["000009.jpg"] = picture(9, RAISER)
    members["000011.jpg"] = members["000011.jpg"][:200]
    write_tar(source / "a.tar", members.items())
    model = "tests.pipeline.annotate.open_model_faults:KillingColours"
    config = configure(source, output, model, model_options={"tolerance": 90})
    summary = annotate(config, phrase_source=two_phrases)
    assert summary.exit_code == 0
    assert summary.kinds == {"killed_worker": 1, "truncated_image": 1, "unexpected": 1}
    found = rows(output)
    assert "no such picture" in found["000009"]["error"]["message"]
    assert (found["000009"]["status"], found["000003"]["status"]) == ("error", "error")
    good = [row for row in found.values() if row["status"] == "ok"]
    assert len(good) == 11
    assert {a["has_target"] for row in good for a in row["annotations"]} == {True, False}
    for annotation in (a for row in good for a in row["annotations"]):
        assert decode_rle(annotation["segmentation"]).sum() == annotation["area"]
        assert (annotation["score"] is not None) == annotation["has_target"]
        assert annotation["target_pixels"] is annotation["predicted_box"] is annotation["stability"] is None

    # Again: only the chunk that is asked for, and only with the same model and options.
    retried = replace(config, output=replace(config.output, retry_errors="truncated_image"))
    again = annotate(retried, phrase_source=two_phrases)
    assert (again.exit_code, again.computed) == (0, 4)
    assert rows(output) == found
    manifest = json.loads((output / "_run.json").read_bytes())
    assert manifest["model"]["name"] == model
    assert manifest["options"]["model_options"] == {"tolerance": 90}
    with pytest.raises(ConfigError, match=r"--model-options was {'tolerance': 90}, now None"):
        annotate(configure(source, output, model), phrase_source=two_phrases)
    colours = "examples.colour_model:ColourModel"
    other = configure(source, output, colours, model_options={"tolerance": 90})
    with pytest.raises(ConfigError, match=r"--model was .*KillingColours .*, now examples\.colour_model"):
        annotate(other, phrase_source=two_phrases)
    second = configure(source, tmp_path / "second", colours, model_options={"tolerance": 70})
    annotate(second, phrase_source=two_phrases)
    lacking = {"predicted_iou", "stability", "box_agreement", "clip_score"}
    work_with(output, tmp_path / "second", tmp_path, lacking)

    batch = pa.table({"image": [picture(0), b"x"], "phrases": [["red square", "blue circle"], ["dog"]]})
    annotated = pipeline.Annotator(colours, model_options={"tolerance": 90}, device="cpu")(batch)
    assert annotated["error"].to_pylist()[1]["kind"] == "not_an_image"
    areas = [a["area"] for a in annotated["annotations"].to_pylist()[0]]
    assert areas == [a["area"] for a in found["000000"]["annotations"]]
    assert np.sum(areas) > 0


def test_sam3_and_grounded_sam(tmp_path: Path) -> None:
    models = tmp_path / "models"
    sam3 = f"sam3:{tiny.sam3(models / 'sam3')}"
    boxes, masks = tiny.grounding_dino(models / "dino"), tiny.segmenter(models / "sam2", "sam2")
    grounded = f"grounded-sam:{boxes}+{masks}"
    source = tmp_path / "in"
    members = dict(sample_members(0, 6))
    members["000004.jpg"] = b"no picture"
    write_tar(source / "a.tar", members.items())
    outputs = {}
    for model, options in ((sam3, {"threshold": 0.2}), (grounded, {"threshold": 0.3})):
        output = tmp_path / model.partition(":")[0]
        config = configure(source, output, model, model_options=options)
        summary = annotate(config, phrase_source=two_phrases)
        assert (summary.exit_code, summary.ok, summary.kinds) == (0, 5, {"not_an_image": 1})
        assert summary.masks > 0
        found = rows(output)
        (output / "annotations/a/part-00000.parquet").unlink()
        assert annotate(config, phrase_source=two_phrases).computed == 6
        assert rows(output) == found
        with pytest.raises(
            ConfigError, match=r"--model-options was {'threshold': .*}, now {'threshold': 0\.9}"
        ):
            annotate(
                configure(source, output, model, model_options={"threshold": 0.9}), phrase_source=two_phrases
            )
        outputs[model] = output
    lacking = {"predicted_iou", "clip_score"}
    work_with(outputs[sam3], outputs[grounded], tmp_path / "one", lacking)
    work_with(outputs[grounded], outputs[sam3], tmp_path / "two", {"clip_score"})
