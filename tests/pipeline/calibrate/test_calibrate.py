"""`sspsam calibrate`: JSON that scores as scikit-learn does, honest numbers, and p_correct in a dataset."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.dataset as pads
import pytest
from PIL import Image
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import brier_score_loss

from jobs.calibrate import main
from pipeline.calibrate.calibrate_run import learn
from pipeline.calibrate.fit import as_json, booster, fit_part
from pipeline.calibrate.judge import judge, risk_coverage
from pipeline.calibrate.labelled_phrases import Labels
from pipeline.curate import CurateConfig, CurateResources, curate
from pipeline.dataset.calibration import SCORE_SHARE, Calibration, evaluate_tree, predict
from pipeline.dataset.opening import open_dataset
from pipeline.dataset.phrase_index import Index
from pipeline.dataset.reviews import Reviews, Verdict
from pipeline.report import ReportConfig, make_report
from pipeline.stats import summarise
from tests.pipeline.annotation_fixture import make_dataset


def drawn(count: int, seed: int = 0) -> Labels:
    """Labels of `count` phrases, 5 an image, whose IoU follows the two signals; some signals are missing."""
    rng = np.random.default_rng(seed)
    features = rng.random((count, 4))
    quality = np.clip(0.6 * features[:, 0] + 0.4 * features[:, 1] + rng.normal(0, 0.1, count), 0, 1)
    features[rng.random(count) < 0.1, 0] = np.nan
    has_target = rng.random(count) < 0.8
    features[~has_target, 2] = np.where(np.arange((~has_target).sum()) == 3, 0.2, np.nan)  # of one phrase
    quality[~has_target] = (quality[~has_target] > 0.4).astype(float)
    names = ("score", "stability", "clip_score", "words")
    images = np.arange(count) // 5
    return Labels(names, features, has_target, quality, images, tuple(map(str, range(count // 5))), True)


@pytest.mark.parametrize("count", [150, 1100])
def test_the_json_scores_as_scikit_learn_does(count: int) -> None:
    labels, other = drawn(count), drawn(400, seed=1).features
    other[::7, 1] = np.nan
    model = booster(count, [1, 1, 1, 0]).fit(labels.features, labels.quality)
    values = json.loads(json.dumps(as_json(model), allow_nan=False))
    score = values["baseline"] + np.sum([evaluate_tree(tree, other) for tree in values["trees"]], axis=0)
    np.testing.assert_allclose(score, model.predict(other), rtol=0, atol=1e-12)
    part = fit_part(labels.names, labels.features, labels.quality, labels.images, True, True)
    assert part is not None
    told = predict(json.loads(json.dumps(part, allow_nan=False)), other)
    curve = IsotonicRegression(out_of_bounds="clip").fit(
        part["curves"]["p_correct"]["x"], part["curves"]["p_correct"]["y"]
    )
    expected = (1 - SCORE_SHARE) * curve.predict(score) + SCORE_SHARE * np.clip(score, 0, 1)
    np.testing.assert_allclose(told["p_correct"], expected, atol=1e-9)
    better = other.copy()
    better[:, :2] += 0.2  # constrained: a better signal never lowers the probability
    assert (predict(part, better)["p_correct"] >= told["p_correct"] - 1e-12).all()
    assert (told["p_correct"] + 0.05 >= told["p_correct_75"]).all()


def test_numbers_are_of_images_not_learnt_from() -> None:
    noise = drawn(500)
    rng = np.random.default_rng(5)
    features = rng.random(noise.features.shape)
    blind = replace(noise, features=features, quality=(rng.random(500) < 0.7).astype(float))
    told = learn(blind)["judged"]["target"]
    # Nothing can be learnt, so nothing may seem to be: the risk is that of chance at every coverage.
    assert told["p_correct"]["aurc"] == pytest.approx(0.3, abs=0.08)
    assert told["p_correct"]["brier"] == pytest.approx(0.21, abs=0.03)
    assert abs(told["alone"]["p_correct"]["spearman"]) < 0.15
    seen = learn(noise)["judged"]["target"]
    assert seen["p_correct"]["ece"] < 0.08
    assert seen["alone"]["p_correct"]["aurc"] < min(seen["alone"][name]["aurc"] for name in noise.names[:3])


def test_metrics_against_their_definitions() -> None:
    rng = np.random.default_rng(0)
    p = rng.random(97).round(1)
    right = rng.random(97) < p
    told = judge(p, right)
    assert told["brier"] == pytest.approx(brier_score_loss(right, p))
    orders = [np.lexsort((rng.random(97), -p)) for _ in range(3000)]
    mean = np.mean([np.mean(np.cumsum(~right[o]) / np.arange(1, 98)) for o in orders])
    assert told["aurc"] == pytest.approx(mean, abs=2e-3)
    assert risk_coverage(np.array([0.9, np.nan, 0.1]), np.array([0, 1, 1])) == pytest.approx(
        (0 + 0.5 + 2 / 3) / 3
    )
    assert sum(one["count"] for one in told["reliability"]) == 97


def annotations(output: Path) -> list[dict[str, Any]]:
    table = pads.dataset(output / "annotations", format="parquet").to_table()
    rows = sorted(table.to_pylist(), key=lambda row: (row["shard"], row["index"]))
    return [{**one, "key": row["key"]} for row in rows for one in row["annotations"]]


def test_from_truth_to_p_correct_everywhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = make_dataset(tmp_path / "made", images=110, shards=2)
    output, out, scored = str(made.output), str(tmp_path / "c.json"), tmp_path / "scored"
    assert main([output, "--truth", str(made.truth), "--out", out, "--to", str(scored)]) == 0
    said = capsys.readouterr().out
    assert "AURC" in said
    with Image.open(tmp_path / "c.png") as picture:
        assert picture.width > 800
    calibration = Calibration.load(out)
    assert len(calibration.used) > 90
    before, after = annotations(made.output), annotations(scored)
    for one, other in zip(before, after, strict=True):
        p, p75 = other.pop("p_correct"), other.pop("p_correct_75")
        assert other == one
        assert 0 < p < 1
        assert 0 <= p75 <= p + 0.1
    assert open_dataset(str(scored)).run() == open_dataset(output).run()
    told = curate(
        str(scored), str(tmp_path / "kept"), CurateConfig(where="p_correct > 0.9"), CurateResources(workers=1)
    )
    assert 0 < told["phrases_out"] < told["phrases_in"]
    assert all(one["p_correct"] > 0.9 for one in annotations(tmp_path / "kept"))
    assert summarise(open_dataset(str(scored)))["signals"]["p_correct"]["known"] > 100
    page = make_report(ReportConfig(str(scored), page=str(tmp_path / "page.html"))).page
    assert "P(correct)" in page.read_text()

    for arguments, says in (
        ([output], "give one of --truth DATASET, --verdicts, --calibration FILE"),
        ([output, "--verdicts", "--out", out], "has no verdict on a phrase"),
        ([output, "--calibration", out], "--to names the folder"),
        ([output, "--calibration", str(tmp_path / "page.html"), "--to", str(tmp_path / "x")], "is not what"),
        ([output, "--calibration", out, "--to", str(scored)], "--overwrite replaces it"),
    ):
        assert main(arguments) == 2
        assert says in capsys.readouterr().err


def test_from_verdicts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = make_dataset(tmp_path / "made", images=80, shards=1, hostile=False)
    index = Index(open_dataset(str(made.output)))
    index.refresh()
    given = []
    for key, row in made.rows.items():
        for one in row["annotations"]:
            verdict = "accept" if (one["score"] or 0) > 0.7 else "reject"
            if one["has_target"]:
                given.append(Verdict(row["shard"], key, one["phrase"], verdict))
    Reviews(index).write(given)
    index.close()
    assert (
        main([str(made.output), "--verdicts", "--out", str(tmp_path / "c.json"), "--to", str(tmp_path / "s")])
        == 0
    )
    assert "labels are too few" in capsys.readouterr().out  # no verdict on a phrase without a target
    for one in annotations(tmp_path / "s"):
        assert one["p_correct_75"] is None
        assert (one["p_correct"] is None) == (not one["has_target"])
        if one["has_target"] and abs(one["score"] - 0.7) > 0.03:
            assert (one["p_correct"] > 0.5) == (one["score"] > 0.7)
    assert len(open_dataset(str(tmp_path / "s")).list_files("reviews")) == 1
