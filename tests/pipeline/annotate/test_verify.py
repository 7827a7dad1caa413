"""`annotate --verify` and `--calibration` through Ray: what they add to the rows, and who works with it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.dataset as pads
import pytest

from jobs.cli import main as cli
from pipeline.calibrate.calibrate_run import learn, to_bytes
from pipeline.calibrate.labelled_phrases import Labels
from pipeline.dataset.calibration import DERIVED, PROBABILITIES, features_of
from pipeline.dataset.opening import open_dataset
from pipeline.dataset.phrase_rows import open_batch
from pipeline.stats import summarise
from sspsam.schema import SIGNALS, VERIFICATION_SIGNALS, annotation_schema

pytestmark = [pytest.mark.usefixtures("local_ray"), pytest.mark.timeout(600)]

SHARD = Path(__file__).parents[3] / "examples/shards/scenes-00.tar"


def command(output: Path, *more: str) -> list[str]:
    usual = ("--limit", "3", "--chunk-size", "2", "--device", "cpu", "--replicas", "1")
    return ["annotate", str(SHARD), str(output), *usual, *more]


@pytest.fixture(scope="module")
def verified(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("verified") / "out"
    assert cli(command(output, "--verify", "fast")) == 0
    return output


def test_verify_fast(verified: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output, kept = verified, tmp_path / "kept"
    dataset = open_dataset(str(output))
    assert dataset.added == VERIFICATION_SIGNALS["fast"]
    assert dataset.schema.equals(annotation_schema(VERIFICATION_SIGNALS["fast"]))
    with dataset.connect() as connection:
        rows = connection.sql(f"SELECT {', '.join(dataset.added)}, area FROM masks").fetchall()
    assert any(row[-1] for row in rows)
    assert all(None not in row[:4] for row in rows if row[-1])  # shared_region needs another mask
    assert summarise(dataset)["signals"]["rival_margin"]["known"] > 0
    assert "annotations.rival_iou" in (output / "README.md").read_text()
    assert (
        cli(["curate", str(output), str(kept), "--where", "rival_margin > -1 and paraphrase_iou >= 0"]) == 0
    )
    assert open_dataset(str(kept)).added == dataset.added
    capsys.readouterr()
    assert cli(command(output)) == 2  # it would go on with rows of another kind
    assert "--verify was 'fast', now 'none'" in capsys.readouterr().err


def leaves(value: Any) -> Iterator[Any]:
    """What lies at the ends of nested lists and dicts, in order; of masks their size."""
    if not isinstance(value, list | dict):
        yield value
        return
    for key, item in value.items() if isinstance(value, dict) else enumerate(value):
        if key != "counts":
            yield from leaves(item)


def learnt(dataset: Path, signals: tuple[str, ...], path: Path) -> Path:
    """A calibration of these signals, from labels made up for phrases of the dataset."""
    rng = np.random.default_rng(0)
    names = (*signals, *DERIVED)
    batch = open_batch(pads.dataset(dataset / "annotations", format="parquet").to_table())
    at = rng.integers(0, len(batch.row_of), 600)
    score = np.argsort(np.argsort(batch.masks["stability"].fill_null(0)))[at] / len(batch.row_of)
    quality = np.clip(score + rng.normal(0, 0.1, 600), 0, 1)
    labels = Labels(names, features_of(batch, names)[at], rng.random(600) < 0.5, quality, at, ("ab",), True)
    path.write_bytes(to_bytes(learn(labels) | {"labels": {"used": ["ab"]}}))
    return path


def test_calibration(verified: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = learnt(verified, (*SIGNALS, *VERIFICATION_SIGNALS["fast"]), tmp_path / "fast.json")
    output, scored = tmp_path / "out", tmp_path / "scored"
    again = command(output, "--verify", "fast", "--calibration", str(file))
    assert cli(again) == 0
    assert cli(["calibrate", str(verified), "--calibration", str(file), "--to", str(scored)]) == 0
    found = [
        pads.dataset(folder / "annotations", format="parquet").to_table().sort_by("index")
        for folder in (output, scored)
    ]
    assert found[0].schema.equals(annotation_schema((*VERIFICATION_SIGNALS["fast"], *PROBABILITIES)))
    rows = [list(leaves(table.to_pylist())) for table in found]
    # Chunks are computed in either order, and a phrase's last bit depends on the batch that it came with.
    numbers = [[leaf for leaf in row if isinstance(leaf, int | float)] for row in rows]
    assert numbers[0] == pytest.approx(numbers[1], rel=1e-3, abs=1e-5)
    words = [[leaf for leaf in row if not isinstance(leaf, int | float)] for row in rows]
    assert words[0] == words[1]
    p = [one["p_correct"] for row in found[0].to_pylist() for one in row["annotations"]]
    assert None not in p
    assert len(set(p)) > 5
    assert (output / "_p_correct.json").read_bytes() == file.read_bytes()
    assert all("p_correct_75" in (output / name).read_text() for name in ("README.md", "croissant.json"))

    files = {path: path.stat().st_mtime_ns for path in (output / "annotations").rglob("*.parquet")}
    assert cli(again) == 0  # nothing is left to do
    assert all(path.stat().st_mtime_ns == when for path, when in files.items())
    capsys.readouterr()
    sha256 = json.loads((output / "_run.json").read_text())["options"]["calibration"]
    other, new = learnt(verified, SIGNALS, tmp_path / "other.json"), tmp_path / "new"
    for place, level, given, says in (
        (output, "fast", [other], f"--calibration was '{sha256}', now '"),
        (output, "fast", [], f"--calibration was '{sha256}', now None"),
        (verified, "fast", [file], f"--calibration was None, now '{sha256}'"),
        (new, "none", [file], "which this run does not compute: add --verify fast"),
        (new, "fast", [tmp_path / "gone.json"], "gone.json: cannot be read"),
        (new, "fast", [SHARD], "is not what `sspsam calibrate` writes"),
    ):
        options = [word for one in given for word in ("--calibration", str(one))]
        assert cli(command(place, "--verify", level, *options)) == 2
        assert says in capsys.readouterr().err
    assert not new.exists()
