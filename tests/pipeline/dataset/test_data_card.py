"""The data card and Croissant metadata: other libraries read the dataset by them, and edited ones stay."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from pipeline.annotate.annotate_config import AnnotateConfig
from pipeline.annotate.manifest import Manifest
from pipeline.curate.curate_config import CurateConfig
from pipeline.curate.curate_run import curate
from pipeline.dataset.data_card import CROISSANT, README, size_category, write_card
from pipeline.dataset.store import Store
from pipeline.sources import Shard
from pipeline.stats.agreement import agree
from sspsam.schema import ANNOTATION_SCHEMA, DESCRIPTIONS
from tests.pipeline.annotation_fixture import MadeDataset, make_dataset

SECRETS = ("s3cr3t", "hunter2", "deadbeef")
DEMO = "Model tiny is a demo, trained on drawn scenes only: its masks mean nothing on photographs."


def manifest(made: MadeDataset, **options: Any) -> Manifest:
    given = {
        "input": "https://me:hunter2@host/in.tar?X-Amz-Signature=deadbeef",
        "output": str(made.output),
        "storage_options": {"key": "me", "secret": "s3cr3t"},
        "model_options": {"api_token": "s3cr3t"},
        "max_phrases": 7,
        "embed_images": True,
        "overwrite": True,
    }
    config = AnnotateConfig.from_options(given | options)
    return Manifest.of(config, [Shard("shard-0000", config.source.input, "tar")], "ab" * 32)


def write(made: MadeDataset, run: Manifest) -> tuple[str, str]:
    statuses = Counter(row["status"] for row in made.rows.values())
    annotations = [one for row in made.rows.values() for one in row["annotations"]]
    counts = {name: statuses[name] for name in ("ok", "no_phrase", "error")} | {
        "output": str(made.output),
        "shards": 2,
        "ended": 2,
        "samples": len(made.rows),
        "phrases": len(annotations),
        "masks": sum(one["has_target"] for one in annotations),
        "kinds": {"truncated_image": statuses["error"]},
    }
    write_card(Store(str(made.output)), dataclasses.asdict(run), counts, run.command())
    return (made.output / README).read_text(), (made.output / CROISSANT).read_text()


def test_other_libraries_read_the_dataset_by_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import datasets
    import mlcroissant

    made = make_dataset(tmp_path / "made")
    readme, croissant = write(made, manifest(made, license="cc-by-4.0"))
    front = yaml.safe_load(readme.split("---\n")[1])
    assert (front["license"], front["size_categories"]) == ("cc-by-4.0", ["n<1K"])
    assert "| samples | 12 |" in readme
    assert "| error: truncated_image | 2 |" in readme
    for text in (readme, json.loads(croissant)["rai:dataAnnotationProtocol"][0]):
        assert "sspsam annotate 'https://host/in.tar?X-Amz-Signature=***'" in text
        assert "--max-phrases 7" in text
        assert "--overwrite" not in text
        assert """--model-options '{"api_token": "***"}'""" in text
    for text in (readme, croissant):
        assert DEMO in text
        assert "ab" * 32 in text
        assert not [secret for secret in SECRETS if secret in text]

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    rows = datasets.load_dataset(str(made.output), split="train", cache_dir=str(tmp_path / "cache"))
    assert {row["key"]: row["caption"] for row in rows} == {
        key: row["caption"] for key, row in made.rows.items()
    }

    with caplog.at_level(logging.WARNING):
        loader = mlcroissant.Dataset(made.output / CROISSANT)
    assert not loader.metadata.ctx.issues.errors
    assert "not standard" not in caplog.text
    assert str(loader.metadata.ctx.conforms_to.value).endswith("croissant/1.1")
    records = list(loader.records("images"))
    assert len(records) == len(made.rows)
    for record in records:
        row = made.rows[record["images/key"].decode()]
        assert (record["images/width"], record["images/status"].decode()) == (row["width"], row["status"])
        kind = record["images/error"]["images/error/kind"]
        assert (kind and kind.decode()) == (row["error"] and row["error"]["kind"])
        masks = record["images/annotations"]
        assert [mask["images/annotations/phrase"].decode() for mask in masks] == [
            one["phrase"] for one in row["annotations"]
        ]
        for mask, one in zip(masks, row["annotations"], strict=True):
            np.testing.assert_allclose(mask["images/annotations/bbox"], one["bbox"])
            assert mask["images/annotations/area"] == one["area"]
        counts = record["images/annotations/segmentation"]["images/annotations/segmentation/counts"]
        assert [one.decode() for one in counts] == [
            one["segmentation"]["counts"] for one in row["annotations"]
        ]


def test_only_what_is_ours_to_the_letter_is_written_again(tmp_path: Path) -> None:
    made = make_dataset(tmp_path, images=2, shards=1, hostile=False)
    readme, croissant = write(made, manifest(made, license="cc0-1.0"))
    assert write(made, manifest(made, license="cc0-1.0"))[0] == readme
    later = manifest(made, model="random:tiny")
    first = manifest(made, license="cc0-1.0")
    again = write(made, dataclasses.replace(later, runs=first.runs + later.runs))
    assert all("has random weights" in text and "cc0-1.0" in text for text in again)  # as was said before
    for name, text in ((README, readme), (CROISSANT, croissant)):
        (made.output / name).write_text(text.replace("cc0-1.0", "mit"))
    edited = write(made, later)
    assert edited == (readme.replace("cc0-1.0", "mit"), croissant.replace("cc0-1.0", "mit"))
    (made.output / README).write_text("# Mine\n")
    (made.output / CROISSANT).unlink()
    readme, croissant = write(made, later)
    assert readme == "# Mine\n"
    assert "license" not in json.loads(croissant)
    (made.output / README).unlink()
    front = write(made, later)[0].split("---\n")[1]
    assert "# license: yours to fill in" in front
    assert "license" not in yaml.safe_load(front)


def test_datasets_made_from_a_dataset_have_them_too(tmp_path: Path) -> None:
    """With their own counts and fields, the model and license of the run, and how they were made."""
    import mlcroissant

    made = make_dataset(tmp_path / "made")
    write(made, manifest(made, license="cc-by-4.0"))
    run = dataclasses.asdict(manifest(made, license="cc-by-4.0"))
    (made.output / "_run.json").write_text(json.dumps(run))
    config = CurateConfig(where="score > 0.2")
    told = curate(str(made.output), str(tmp_path / "cut"), config)
    agree(str(tmp_path / "cut"), str(made.output), str(tmp_path / "agreed"))
    for name, fields in {
        "cut": ("split", "annotations.aliases"),
        "agreed": ("annotations.agreement",),
    }.items():
        readme, text = ((tmp_path / name / file).read_text() for file in (README, CROISSANT))
        assert f"| samples | {told['images_out']} |" in readme
        assert f"| phrases | {told['phrases_out']} |" in readme
        assert all(f"| `{field}` | " in readme for field in fields)
        assert "license: cc-by-4.0" in readme
        assert "ab" * 32 in readme
        assert not [secret for secret in SECRETS if secret in readme + text]
        loader = mlcroissant.Dataset(tmp_path / name / CROISSANT)
        assert not loader.metadata.ctx.issues.errors
        assert len(list(loader.records("images"))) == told["images_out"]
    assert f"sspsam curate {made.output} {tmp_path / 'cut'}" in (tmp_path / "cut" / README).read_text()
    assert "score > 0.2" in (tmp_path / "cut" / README).read_text()


def test_every_field_is_described() -> None:
    def paths(fields: Any, above: str = "") -> list[str]:
        found = []
        for field in fields:
            kind = getattr(field.type, "value_type", field.type)
            below = paths(kind, f"{above}{field.name}.") if kind.num_fields else []
            found += [f"{above}{field.name}", *below]
        return found

    # The struct in which `datasets` stores an image is one field to those who read it.
    assert [path for path in paths(ANNOTATION_SCHEMA) if not path.startswith("image.")] == list(DESCRIPTIONS)


@pytest.mark.parametrize(
    ("samples", "category"),
    [(0, "n<1K"), (999, "n<1K"), (1000, "1K<n<10K"), (2 * 10**9, "1B<n<10B"), (10**12, "n>1T")],
)
def test_sizes_have_the_names_of_the_hub(samples: int, category: str) -> None:
    assert size_category(samples) == category
