"""Metrics against hand-computed tables, pycocotools, ReLA's definitions, and properties."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from pycocotools import mask as coco_mask

from sspsam.errors import ConfigError, DataError
from sspsam.evaluation import SAMPLE_SCHEMA, intervals, markdown, summarise, task_metrics
from sspsam.evaluation.scoring import box_overlap, mask_overlap
from sspsam.evaluation.table import image_groups

REQUIRED = {"shard": "s", "image_key": "i", "phrase": "p", "split": "val"}


def table(rows: list[dict]) -> pa.Table:
    filled = [{"key": str(n), "image": str(n), **REQUIRED, **row} for n, row in enumerate(rows)]
    return pa.Table.from_pylist(filled, schema=SAMPLE_SCHEMA)


def sample(
    truth: int, predicted: int, intersection: int, *, said: bool | None = None, box: float = 0.0
) -> dict:
    """A row of the given areas; `said`: whether the model says that there is a target."""
    said = predicted > 0 if said is None else said
    union = truth + predicted - intersection
    row = {
        "has_target": truth > 0,
        "predicted_has_target": said,
        "intersection": intersection,
        "union": union,
        "area": truth,
        "predicted_area": predicted,
        "box_iou": box if truth else None,
        "authors_intersection": intersection,
        "authors_union": union,
        "authors_area": truth,
        "authors_predicted_area": predicted,
        "authors_empty": predicted < 50,
        "authors_box_iou": box,
    }
    iou = intersection / union if said and union else 0.0
    row["iou"] = iou if truth else float(not said)
    return row


def missing(truth: int) -> dict:
    return {
        "has_target": truth > 0,
        "area": truth,
        "authors_area": truth,
        "error": {"kind": "not_an_image", "message": "x"},
    }


def values(rows: list[dict], task: str, protocol: str = "standard") -> dict[str, float]:
    made = table(rows)
    scores = intervals(task_metrics(made, task, protocol), image_groups(made), resamples=0)
    return {score.name: score.value for score in scores}


def test_res_by_hand():
    rows = [
        sample(100, 100, 100, box=0.6),  # IoU 1
        sample(100, 50, 50, box=0.5),  # 0.5
        sample(200, 100, 60, said=False, box=0.4),  # 60/240 = 0.25: drawn counts, not the decision
        missing(40),
    ]
    found = values(rows, "res")
    assert found["oIoU"] == pytest.approx((100 + 50 + 60) / (100 + 100 + 240 + 40))
    assert found["mIoU"] == pytest.approx((1 + 0.5 + 0.25 + 0) / 4)
    assert found["Pr@0.5"] == 2 / 4  # 0.5 counts: at least
    assert found["Pr@0.6"] == 1 / 4
    assert found["Pr@0.9"] == 1 / 4
    assert found["Acc@0.5"] == 2 / 4


def test_gres_by_hand():
    rows = [
        sample(100, 80, 80),  # 0.8
        sample(50, 50, 50, said=False),  # a target denied: empty mask, IoU 0, union 50
        sample(0, 0, 0, said=False),  # right "no target"
        sample(0, 30, 0, said=False),  # a small scribble under a right "no target" is nothing
        sample(0, 70, 0),  # something where nothing is: 70 into the union
        sample(100, 100, 0),  # a target, wrongly placed: IoU 0, union 200
        missing(10),
        missing(0),
    ]
    found = values(rows, "gres")
    assert found["gIoU"] == pytest.approx((0.8 + 0 + 1 + 1 + 0 + 0 + 0 + 0) / 8)
    assert found["cIoU"] == pytest.approx(80 / (100 + 50 + 70 + 200 + 10))
    assert found["N-acc"] == pytest.approx(2 / 4)
    assert found["T-acc"] == pytest.approx(2 / 4)  # the misplaced one is still "a target"
    assert found["mIoU"] == pytest.approx(0.8 / 4)
    assert found["Pr@0.8"] == pytest.approx(1 / 4)  # over those with a target


def rela(rows: list[dict]) -> dict[str, float]:
    """ReLA's evaluator in its own words: a loop of counters (arXiv 2306.00968, section 5)."""
    iou, inter, union, tp, fn, tn, fp = 0.0, 0, 0, 0, 0, 0, 0
    for row in rows:
        said_none = not row["predicted_has_target"]
        if not row["has_target"]:
            if said_none:
                tp, iou = tp + 1, iou + 1
            else:
                fn, union = fn + 1, union + row["union"]
        elif said_none:
            fp, union = fp + 1, union + row["area"]
        else:
            tn = tn + 1
            iou += row["intersection"] / row["union"]
            inter, union = inter + row["intersection"], union + row["union"]
    ratio = lambda a, b: a / b if b else math.nan  # noqa: E731
    return {
        "gIoU": iou / len(rows),
        "cIoU": ratio(inter, union),
        "N-acc": ratio(tp, tp + fn),
        "T-acc": ratio(tn, tn + fp),
    }


@st.composite
def samples(draw) -> dict:
    truth = draw(st.sampled_from([0, 0, 1, 60, 500]))
    predicted = draw(st.sampled_from([0, 1, 49, 50, 300]))
    return sample(
        truth,
        predicted,
        draw(st.integers(0, min(truth, predicted))),
        said=predicted > 0 and draw(st.booleans()),
        box=draw(st.floats(0, 1)),
    )


@settings(max_examples=150, deadline=None)
@given(st.lists(samples(), min_size=1, max_size=12), st.randoms())
def test_properties(rows: list[dict], random):
    """Bounds; agreement with ReLA's counters; order and repetition change nothing."""
    for task, protocol in [
        ("res", "standard"),
        ("gres", "standard"),
        ("phrasecut", "standard"),
        ("gres", "authors"),
    ]:
        found = values(rows, task, protocol)
        for name, value in found.items():
            assert math.isnan(value) or 0 <= value <= 1 or "as coded" in name
        hits = [found[f"Pr@{t}"] for t in (0.5, 0.6, 0.7, 0.8, 0.9)]
        if not math.isnan(hits[0]):
            assert hits == sorted(hits, reverse=True)
        shuffled = random.sample(rows, len(rows))
        assert values(shuffled, task, protocol) == pytest.approx(found, nan_ok=True)
        assert values(rows * 3, task, protocol) == pytest.approx(found, nan_ok=True)
    assert {k: v for k, v in values(rows, "gres").items() if k in rela(rows)} == pytest.approx(
        rela(rows), nan_ok=True
    )


def test_perfect_and_hopeless():
    perfect = [sample(10, 10, 10, box=1.0), sample(0, 0, 0)]
    assert all(v == 1 for v in values(perfect[:1], "res").values())
    assert all(v == 1 for v in values(perfect, "gres").values())
    hopeless = [sample(10, 10, 0), sample(0, 60, 0), missing(5), missing(0)]
    for task in ("res", "gres", "phrasecut"):
        found = values(hopeless, task)
        assert all(v == 0 for name, v in found.items() if name != "T-acc"), found


def test_phrasecut_is_strict():
    rows = [sample(100, 50, 50), sample(100, 90, 90), missing(100)]
    found = values(rows, "phrasecut")
    assert found["Pr@0.5"] == pytest.approx(1 / 3)
    assert found["Pr@0.9"] == 0
    assert found["mIoU"] == pytest.approx((0.5 + 0.9) / 3)
    assert found["cIoU"] == pytest.approx(140 / 300)


def mask_iou_reftr(truth: int, predicted: int, intersection: int) -> tuple[float, int, int]:
    """The authors' per-sample rule, from its description."""
    if truth == 0:
        return (1.0, 0, 0) if predicted < 50 else (0.0, 0, predicted)
    union = truth + predicted - intersection
    return intersection / union, intersection, union


def test_authors_by_hand():
    cases = [(100, 100, 100), (100, 100, 50), (100, 0, 0), (0, 49, 0), (0, 50, 0), (0, 0, 0)]
    rows = [sample(*case, box=0.7) for case in cases]
    ious, inters, unions = zip(*(mask_iou_reftr(*case) for case in cases), strict=True)
    found = values(rows, "gres", "authors")
    assert found["mIoU (gIoU)"] == pytest.approx(np.mean(ious))
    assert found["oIoU (cIoU)"] == pytest.approx(sum(inters) / sum(unions))
    assert found["Pr@0.9"] == pytest.approx(np.mean(np.array(ious) >= 0.9))  # over all samples
    assert found["N-acc"] == pytest.approx(2 / 3)
    assert found["T-acc"] == pytest.approx(2 / 3)
    # Its counters: IoU exactly 1 is "predicted empty" even on a target; and only 0 < IoU < 1 is found.
    assert found["N-acc as coded"] == pytest.approx(3 / 3)
    assert found["T-acc as coded"] == pytest.approx(1 / 3)
    assert "N-acc" not in values(rows[:3], "res", "authors")


def test_unknown_names():
    with pytest.raises(ConfigError, match="--task"):
        task_metrics(table([sample(1, 1, 1)]), "detection", "standard")
    with pytest.raises(ConfigError, match="--protocol"):
        task_metrics(table([sample(1, 1, 1)]), "res", "coco")


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(bool, (2, 7, 9)))
def test_overlap_agrees_with_pycocotools_and_numpy(masks: np.ndarray):
    packed = [coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8)) for mask in masks]
    intersection, union = mask_overlap(*packed)
    assert intersection == np.logical_and(*masks).sum()
    assert union == np.logical_or(*masks).sum()
    assert mask_overlap(*packed[::-1]) == (intersection, union)
    if union:
        assert intersection / union == pytest.approx(coco_mask.iou([packed[0]], [packed[1]], [0])[0, 0])


def test_masks_of_two_sizes_do_not_compare():
    small, large = (coco_mask.encode(np.ones((n, 4), np.uint8, order="F")) for n in (3, 4))
    with pytest.raises(DataError, match="4 x 3 pixels and the prediction 4 x 4"):
        mask_overlap(small, large)


boxes = st.tuples(*[st.floats(0, 50), st.floats(0, 50), st.floats(0.1, 50), st.floats(0.1, 50)])


@given(boxes, boxes)
def test_box_overlap_agrees_with_pycocotools(a, b):
    found = box_overlap(a, b)
    assert found == pytest.approx(coco_mask.iou(np.array([a]), np.array([b]), [0])[0, 0], abs=1e-9)
    assert found == pytest.approx(box_overlap(b, a))
    assert box_overlap(a, a) == pytest.approx(1)


def test_intervals_cover_and_follow_the_images():
    """A mean of independent samples: the interval has the width theory says; clustered, wider."""
    rng = np.random.default_rng(3)
    rows = [sample(100, 100, int(n)) for n in rng.integers(0, 101, 400)]
    made = table(rows)
    metric = [m for m in task_metrics(made, "res", "standard") if m.name == "mIoU"]
    score = intervals(metric, image_groups(made), resamples=2000, seed=1)[0]
    spread = 1.96 * np.std(metric[0].numerator) / np.sqrt(400)
    assert score.low < score.value < score.high
    assert score.high - score.low == pytest.approx(2 * spread, rel=0.1)
    again = intervals(metric, image_groups(made), resamples=2000, seed=1)[0]
    assert again == score
    fourfold = table(rows * 4).set_column(
        made.schema.get_field_index("image"), "image", pa.array([str(n % 400) for n in range(1600)])
    )
    metric = [m for m in task_metrics(fourfold, "res", "standard") if m.name == "mIoU"]
    clustered = intervals(metric, image_groups(fourfold), resamples=2000, seed=1)[0]
    assert clustered.high - clustered.low == pytest.approx(score.high - score.low, rel=0.15)


def test_summary_lists_subsets_and_worst_cases():
    rows = [
        {**sample(100, 100, 100), "subsets": ["p_att", "category:dog"], "phrase": "a | b"},
        {**sample(100, 100, 20), "subsets": ["p_rel", "category:cat"]},
        {**sample(0, 90, 0), "subsets": ["p_rel"]},
        {**missing(30), "subsets": ["p_rel"]},
    ]
    found = summarise(
        table(rows), "gres", ("standard", "authors"), resamples=50, about={"model": "m", "dataset": "d"}
    )
    assert found.value("mIoU", subset="p_att") == 1
    assert found.value("mIoU", subset="category:cat") == pytest.approx(20 / 180)
    assert found.missing == {"not_an_image": 1}
    assert [row["key"] for row in found.worst] == ["2", "1", "0"]
    assert math.isnan(found.value("N-acc", subset="p_att"))
    plain = found.to_json()
    assert plain["protocols"]["standard"]["p_att"]["N-acc"]["value"] is None
    text = markdown(found)
    assert "a \\| b" in text
    assert "| gIoU |" in text
    assert "not scored, counted as wrong: 1 not_an_image" in text
    with pytest.raises(KeyError):
        found.value("AP")
