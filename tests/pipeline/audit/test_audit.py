"""From an audit to a curated dataset with a promise; rates, intervals, and agreement of reviewers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from jobs.audit import main as audit_main
from jobs.curate import main as curate_main
from pipeline.audit import begin, summarise_audits
from pipeline.audit.audit_rates import clopper_pearson, cohen
from pipeline.calibrate import apply, calibrate
from pipeline.calibrate.calibrate_run import to_bytes
from pipeline.dataset.annotation_dataset import AnnotationDataset
from pipeline.dataset.audit_sample import Audit, read_audits
from pipeline.dataset.calibration import Calibration
from pipeline.dataset.opening import open_dataset
from pipeline.dataset.phrase_index import Index
from pipeline.dataset.reviews import Reviews, Verdict
from sspsam.inference.masks import decode_rle
from tests.pipeline.annotation_fixture import MadeDataset, make_dataset


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> tuple[MadeDataset, Path]:
    """A dataset with p_correct, learnt from another one's truth."""
    folder = tmp_path_factory.mktemp("scored")
    made = make_dataset(folder / "made", images=100, shards=2, hostile=False)
    other = make_dataset(folder / "other", images=50, shards=1, seed=9)
    values = calibrate(str(other.output), str(other.truth))
    values["labels"]["used"] = []  # other images, though the fixture gives them the same names
    calibration = Calibration.parse(to_bytes(values), "c.json")
    apply(str(made.output), calibration, str(folder / "scored"))
    return made, folder / "scored"


def right(made: MadeDataset, row: dict[str, Any]) -> bool:
    one, true = (rows[row["key"]]["annotations"][row["position"]] for rows in (made.rows, made.truth_rows))
    if not (one["has_target"] and true["has_target"]):
        return bool(one["has_target"] == true["has_target"])
    masks = [decode_rle(annotation["segmentation"]) for annotation in (one, true)]
    return bool((masks[0] & masks[1]).sum() >= 0.5 * (masks[0] | masks[1]).sum())


def review(
    dataset: AnnotationDataset, audit: Audit, judged: Callable[[dict[str, Any]], bool], reviewer: str
) -> None:
    index = Index(dataset)
    index.refresh()
    verdicts = [
        Verdict(
            row["shard"],
            row["key"],
            row["phrase"],
            "accept" if judged(row) else "reject",
            None,
            reviewer,
            2.0,
        )
        for row in audit.rows.to_pylist()
    ]
    Reviews(index).write(verdicts)
    index.close()


def test_from_audit_to_a_promise(
    scored: tuple[MadeDataset, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made, output = scored
    kept = str(tmp_path / "kept")
    wanted = [str(output), kept, "--precision", "0.9", "--confidence", "0.9"]
    assert curate_main(wanted) == 2
    assert "sspsam audit" in capsys.readouterr().err
    assert curate_main([*wanted, "--where", "score > 2"]) == 2
    assert "no mask to promise anything about" in capsys.readouterr().err
    assert audit_main([str(output), "--summary"]) == 0
    assert "nothing has been drawn yet" in capsys.readouterr().out
    dataset = open_dataset(str(output))
    given: dict[str, Any] = {"precision": 0.9, "confidence": 0.9, "seed": 0, "memory_mb": 512}
    audit = begin(dataset, 30, **given)
    assert begin(dataset, 99, **given).name == audit.name  # it is not done yet
    assert audit.draws.sum() == 30
    assert curate_main(wanted) == 2  # no verdict yet
    review(dataset, audit, lambda row: right(made, row), "ann")
    assert curate_main([str(output), kept, "--precision", "0.99"]) == 2
    assert "more verdicts are needed: sspsam audit" in capsys.readouterr().err
    second = begin(dataset, 200, **given)
    assert second.name != audit.name
    review(dataset, second, lambda row: right(made, row), "ann")
    assert [one.name for one in read_audits(dataset)] == sorted([audit.name, second.name])

    assert curate_main([*wanted, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    promise = told["guarantee"]
    passed = masks(Path(kept))
    assert all(one["p_correct"] >= np.float32(promise["threshold"]) for one in passed)
    assert 0 < promise["kept"] <= promise["of"]
    assert any(step["stage"].startswith("where p_correct >=") for step in told["funnel"])
    assert promise["statement"] in (Path(kept) / "README.md").read_text().replace("With", "with", 1)
    places = {key: [one["phrase"] for one in row["annotations"]] for key, row in made.rows.items()}
    truly = [right(made, one | {"position": places[one["key"]].index(one["phrase"])}) for one in passed]
    assert np.mean(truly) >= 0.85  # 0.9 with confidence 0.9, of some hundred masks
    assert told["config"]["where"] == []

    # A calibration that was learnt from the very images cannot vouch for itself.
    itself = Calibration.parse(to_bytes(calibrate(str(made.output), str(made.truth))), "c.json")
    apply(str(output), itself, str(tmp_path / "again"))
    assert len(read_audits(open_dataset(str(tmp_path / "again")))) == 2
    assert curate_main([str(tmp_path / "again"), str(tmp_path / "x"), "--precision", "0.9"]) == 2
    assert "only of images from whose labels its calibration was learnt" in capsys.readouterr().err

    # Rates, and a second reviewer who errs at times.
    review(dataset, second, lambda row: right(made, row) != (row["draws"] > 1), "bob")
    found = summarise_audits(dataset, read_audits(dataset), 0.95)
    assert found["median_seconds"] == 2.0
    over = {(one["by"], one["stratum"]): one for one in found["rates"]}
    of_all = [
        right(made, {"key": key, "position": place})
        for key, row in made.rows.items()
        for place, one in enumerate(row["annotations"])
        if one["has_target"]
    ]
    assert (
        over["over all", "masks"]["low"] - 0.05 <= np.mean(of_all) <= over["over all", "masks"]["high"] + 0.05
    )
    assert found["decided"] < found["phrases"]
    (pair,) = found["reviewers"]["pairs"]
    assert 0.5 < pair["same"] < 1
    assert audit_main([str(output), "--summary"]) == 0
    assert "Cohen's kappa" in capsys.readouterr().out


def test_from_truth_to_a_promise(
    scored: tuple[MadeDataset, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made, output = scored
    by_truth = [str(output), str(tmp_path / "true"), "--confidence", "0.9", "--truth", str(made.truth)]
    assert curate_main(by_truth) == 2
    assert "--truth is what --precision rests on" in capsys.readouterr().err
    assert curate_main([*by_truth, "--precision", "0.98"]) == 2
    assert "more such masks are needed, of further images" in capsys.readouterr().err
    assert curate_main([*by_truth, "--precision", "0.75", "--json"]) == 0
    promise = json.loads(capsys.readouterr().out)["guarantee"]
    assert 25 < promise["draws"] <= 100
    assert promise["draws"] * 3 < promise["kept"]


def masks(output: Path) -> list[dict[str, Any]]:
    with open_dataset(str(output)).connect() as connection:
        rows = connection.execute("select key, phrase, p_correct from masks").fetchall()
    return [dict(zip(("key", "phrase", "p_correct"), row, strict=True)) for row in rows]


def test_intervals_and_kappa_are_those_of_the_books() -> None:
    assert clopper_pearson(0, 59, 0.9)[1] == pytest.approx(0.0495, abs=1e-3)
    assert clopper_pearson(10, 10, 0.95) == (pytest.approx(0.6915, abs=1e-3), 1.0)
    rng = np.random.default_rng(0)
    first = rng.choice(["accept", "reject", "flag"], 200)
    second = np.where(rng.random(200) < 0.7, first, "accept")
    assert cohen(list(zip(first, second, strict=True))) == pytest.approx(cohen_kappa_score(first, second))
    assert cohen([("accept", "accept")]) is None
