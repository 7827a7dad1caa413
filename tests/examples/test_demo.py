"""`make demo`: what a stranger runs first. Its numbers, its pictures, and itself once more."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from examples.demo import is_outdated
from examples.score import TRUTH, phrase_key, score
from sspsam.schema import ANNOTATION_SCHEMA
from tests.examples.demo_rows import assert_equal_to_reference


def test_truth_scores_itself_as_perfect_and_faults_are_counted(tmp_path: Path) -> None:
    perfect = score(TRUTH, TRUTH)
    assert (perfect.mean_iou, perfect.no_target_accuracy, perfect.unknown) == (1.0, 1.0, 0)
    assert perfect.images == 100
    assert perfect.phrases > 150
    assert perfect.absent > 15
    assert sum(count for count, _ in perfect.by_kind.values()) == perfect.phrases
    assert 100 < perfect.one_object[0] < perfect.phrases
    assert perfect.one_object[1] == 1.0

    worse = tmp_path / "worse"
    shutil.copytree(TRUTH / "annotations", worse / "annotations")
    file = worse / "annotations" / "scenes-00" / "00000.parquet"
    rows = pq.read_table(file).to_pylist()
    asked = [annotation for row in rows for annotation in row["annotations"]]
    shown = [annotation for annotation in asked if annotation["has_target"]]
    shown[0]["has_target"] = False  # missed: IoU 0
    shown[1]["phrase"] = "something that nobody labelled"
    for annotation in asked:
        if annotation["phrase"] != shown[1]["phrase"]:
            annotation["phrase"] = f"The {phrase_key(annotation['phrase'])}"
    absent = next(
        annotation for annotation in asked if not annotation["has_target"] and annotation["area"] == 0
    )
    absent["has_target"] = True
    table = pq.read_table(file)
    pq.write_table(table.from_pylist(rows, schema=ANNOTATION_SCHEMA), file)
    found = score(worse)
    assert found.unknown == 1
    assert found.phrases == perfect.phrases - 1
    assert found.mean_iou == pytest.approx((perfect.phrases - 2) / (perfect.phrases - 1))
    assert found.no_target_accuracy == pytest.approx(1 - 1 / perfect.absent)
    with pytest.raises(FileNotFoundError, match="nowhere holds no annotations"):
        score(tmp_path / "nowhere")


@pytest.mark.chaos
@pytest.mark.timeout(600)
def test_the_demo_itself(tmp_path: Path) -> None:
    """As `make demo` runs it, in a folder of its own; then again, which computes nothing."""
    folder = tmp_path / "demo"
    environment = os.environ | {"RAY_AUTH_MODE": "disabled", "COLUMNS": "100"}
    printed = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-m", "examples.demo", str(folder)],
            cwd=Path(__file__).parents[2],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        printed.append(done.stdout)
    first, second = printed
    assert "every image is accounted for" in first
    told = {name: float(value) for name, value in re.findall(r"(mean IoU|accuracy) .*?(\d\.\d+)", first)}
    # Floors far below the model card's numbers: this asks whether the path works, not how well.
    assert told["mean IoU"] > 0.6
    assert told["accuracy"] > 0.5
    assert re.search(r"computed now\W+100 images", first)
    assert re.search(r"computed now\W+0 images", second)
    assert Image.open(folder / "sheet.png").width > 500
    page = (folder / "report.html").read_text()
    assert page.count("data:image/") > 20
    output = folder / "output"
    assert_equal_to_reference(output)
    assert not is_outdated(output)
    manifest = json.loads((output / "_run.json").read_text())
    manifest["model"]["sha256"] = "0" * 64
    (output / "_run.json").write_text(json.dumps(manifest))
    assert is_outdated(output)
