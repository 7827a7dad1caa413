"""The command, from files of every format to numbers, against numbers computed here by hand."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from pycocotools import mask as coco_mask

from jobs.evaluate import main
from sspsam import SSPSAM
from sspsam.data.orientation import ignore_orientation
from sspsam.images.geometry import logits_to_square
from tests.pipeline.annotation_fixture import make_dataset
from tests.processes import descendants, running, wait_until
from tests.sspsam.data.benchmarks import IMAGES, MadeBenchmarks, file_name, make_benchmarks


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> MadeBenchmarks:
    return make_benchmarks(tmp_path_factory.mktemp("benchmarks"))


pytestmark = pytest.mark.usefixtures("cluster")
ALWAYS = ("--json", "--chunk-size", "2", "--replicas", "1", "--device", "cpu")


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, dict, str]:
    """Exit code, the JSON that it printed, and what it said."""
    code = main([*map(str, arguments), *ALWAYS])
    printed = capsys.readouterr()
    return code, json.loads(printed.out) if printed.out.strip() else {}, printed.err


def predictions(output: Path, folder: str = "annotations") -> dict[tuple[str, str], dict]:
    """(image key, phrase) -> annotation."""
    rows = pq.ParquetDataset(output / folder).read().to_pylist()
    return {(row["key"], a["phrase"]): a for row in rows for a in row["annotations"]}


def decode(annotation: dict) -> np.ndarray:
    rle = annotation["segmentation"]
    return coco_mask.decode({**rle, "counts": rle["counts"].encode()}).astype(bool)


def iou(a: np.ndarray, b: np.ndarray) -> float:
    union = np.logical_or(a, b).sum()
    return float(np.logical_and(a, b).sum() / union) if union else 0.0


def metric(found: dict, name: str, protocol: str = "standard", subset: str = "all") -> float:
    return found["protocols"][protocol][subset][name]["value"]


def test_refer(made: MadeBenchmarks, tiny_model_dir: Path, tmp_path: Path, capsys):
    """oIoU and mIoU as the predictions and the drawn shapes give them; then a resume."""
    output = tmp_path / "out"
    arguments = (tiny_model_dir, made.refer, "-o", output)
    code, found, _ = run(capsys, *arguments)
    assert code == 0
    assert (found["samples"], found["images"], found["task"]) == (18, 3, "res")
    pairs = [
        (decode(a), made.mask(int(key[-2:]), phrase.removeprefix("the ")))
        for (key, phrase), a in predictions(output).items()
    ]
    assert len(pairs) == 18
    assert metric(found, "mIoU") == pytest.approx(np.mean([iou(*pair) for pair in pairs]))
    inside, union = (sum(op(*pair).sum() for pair in pairs) for op in (np.logical_and, np.logical_or))
    assert metric(found, "oIoU") == pytest.approx(inside / union)
    for (key, phrase), truth in predictions(output, "truth/annotations").items():
        expected = made.mask(int(key[-2:]), phrase.removeprefix("the "))
        np.testing.assert_array_equal(decode(truth), expected)

    # The shard's file is gone: it is computed again.
    (part,) = (output / "annotations").rglob("*.parquet")
    part.unlink()
    code, again, _ = run(capsys, *arguments)
    assert code == 0
    assert again == found
    assert json.loads((output / "metrics.json").read_text()) == found
    assert "| mIoU |" in (output / "metrics.md").read_text()

    code, _, said = run(capsys, *arguments, "--protocol", "both")
    assert code == 2
    assert "records:refer:val:both" in said
    code, _, said = run(capsys, *arguments, "--split", "train")
    assert code == 2


@pytest.mark.chaos
def test_a_killed_evaluation_goes_on(made: MadeBenchmarks, micro_model: Path, tmp_path: Path, capsys):
    """The driver is killed by SIGKILL between two chunks; the same command gives the same numbers."""
    arguments = (micro_model, made.phrasecut, "--split", "train,val", "--protocol", "both")
    output = tmp_path / "stormy"
    command = [sys.executable, "-m", "jobs.evaluate", *map(str, arguments), "-o", str(output), *ALWAYS]
    with (tmp_path / "log").open("wb") as log:
        driver = subprocess.Popen(command, stdout=log, stderr=log)

    def chunks() -> set[Path]:
        assert driver.poll() is None, (tmp_path / "log").read_text()[-3000:]
        return set((output / "_chunks").rglob("*.parquet"))

    try:
        wait_until(chunks, 300, "the first chunk")
        its = descendants(driver.pid)
    finally:
        driver.kill()
        driver.wait()
    code, calm, _ = run(capsys, *arguments, "-o", tmp_path / "calm")
    assert (code, calm["images"]) == (0, 7)
    # Its Ray ends by itself. Until then a replica may still write, as one of a lost node may.
    wait_until(lambda: not running(its), 300, "the end of its Ray")
    assert list(output.rglob("*.parquet"))  # how many is a race that the orphaned replicas may win
    assert not (output / "metrics.json").exists()

    code, found, said = run(capsys, *arguments, "-o", output)
    assert code == 0, said
    assert found == calm


def test_grefcoco_in_both_protocols(
    made: MadeBenchmarks, tiny_model: SSPSAM, tiny_model_dir: Path, tmp_path: Path, capsys
):
    output = tmp_path / "out"
    code, found, _ = run(capsys, tiny_model_dir, made.grefcoco, "-o", output, "--protocol", "both")
    assert (code, found["task"], found["samples"]) == (0, "gres", 9)
    shapes = {
        "the red square on the left": ("red square",),
        "square and disk": ("red square", "blue disk"),
        "a purple elephant": (),
    }
    terms = []
    for (key, phrase), annotation in predictions(output).items():
        truth = made.mask(int(key[-2:]), *shapes[phrase])
        drawn = decode(annotation) & annotation["has_target"]
        terms.append(iou(drawn, truth) if truth.any() else float(not annotation["has_target"]))
    assert metric(found, "gIoU") == pytest.approx(np.mean(terms))
    assert {"no target", "one target", "several targets"} <= set(found["protocols"]["standard"])

    # The authors' protocol, from the model's own logits.
    rows = {(r["image_key"], r["phrase"]): r for r in pq.read_table(output / "samples.parquet").to_pylist()}
    picture = Image.open(made.images / "train2014" / file_name(5)).convert("RGB")
    clip_pixels, sam_pixels, geometry = tiny_model.preprocess(picture)
    config = tiny_model.config
    for phrase, parts in shapes.items():
        with torch.no_grad():
            features = tiny_model.encode_image(clip_pixels[None], sam_pixels[None])
            out = tiny_model(clip_pixels[None], tiny_model.tokenize([phrase]), features.sam_embedding)
        logits = logits_to_square(out.mask_logits, config.sam.image_size, config.score_size)[0]
        truth = torch.from_numpy(made.mask(5, *parts))[None]
        square = geometry.sam.masks_to_square(truth, config.score_size)[0]
        row = rows[(Path(file_name(5)).stem, phrase)]
        assert row["authors_predicted_area"] == pytest.approx(int((logits >= 0).sum()), abs=2)
        assert row["authors_area"] == int(square.sum())
        overlap = int(((logits >= 0) & square).sum())
        assert row["authors_intersection"] == pytest.approx(overlap, abs=2)


@pytest.mark.chaos
def test_other_formats(made: MadeBenchmarks, tiny_model_dir: Path, tmp_path: Path, capsys):
    code, found, _ = run(capsys, tiny_model_dir, made.phrasecut, "-o", tmp_path / "phrasecut")
    assert (code, found["task"], found["samples"]) == (0, "phrasecut", 9)
    assert {"p_att+", "p_rel", "c20", "category:square"} <= set(found["protocols"]["standard"])

    authors = (made.authors(), "--images", made.images, "--protocol", "authors")
    code, found, _ = run(capsys, tiny_model_dir, *authors, "-o", tmp_path / "authors")
    assert (code, found["samples"], list(found["protocols"])) == (0, 18, ["authors"])

    dataset = make_dataset(tmp_path / "annotated", images=4)
    annotated = (dataset.truth, "--split", "all", "-o", tmp_path / "annotations")
    code, found, _ = run(capsys, tiny_model_dir, *annotated)
    assert (code, found["task"]) == (0, "gres")

    scenes = ("scenes:3", "--split", "heldout", "-o", tmp_path / "scenes")
    code, found, _ = run(capsys, tiny_model_dir, *scenes)
    assert (code, found["images"]) == (0, 3)
    assert len(list((tmp_path / "scenes" / "images").glob("*.png"))) == 3
    subsets = set(found["protocols"]["standard"])
    assert "name" in subsets


def test_another_open_model(tmp_path: Path, capsys):
    dataset = make_dataset(tmp_path / "annotated", images=4)
    model = "examples.colour_model:ColourModel"
    arguments = (model, dataset.truth, "--split", "all", "-o", tmp_path / "out")
    code, _, _ = run(capsys, *arguments, "--model-options", '{"tolerance": 30}')
    assert code == 0
    truths, drawn = predictions(dataset.truth), predictions(tmp_path / "out")
    meant = [key for key, truth in truths.items() if truth["has_target"]]
    values = [iou(decode(truths[key]), decode(drawn[key])) for key in meant]
    assert max(values) > 0.5
    samples = pq.read_table(tmp_path / "out/samples.parquet").to_pylist()
    scored = [row["iou"] for row in samples if (row["image_key"], row["phrase"]) in meant]
    assert sorted(scored) == pytest.approx(sorted(values))
    code, _, said = run(capsys, *arguments, "--overwrite", "--protocol", "both")
    assert (code, "take --protocol standard" in said) == (2, True)


def test_what_cannot_be_scored_counts_as_wrong(
    made: MadeBenchmarks, tiny_model_dir: Path, tmp_path: Path, capsys
):
    """One image is gone, one is not an image: named, counted as wrong, exit code 1."""
    bench = make_benchmarks(tmp_path / "bench")
    folder = bench.images / "train2014"
    (folder / file_name(6)).unlink()
    (folder / file_name(7)).write_bytes(b"not an image")
    output = tmp_path / "out"
    code, found, said = run(capsys, tiny_model_dir, bench.grefcoco, "-o", output)
    assert code == 1
    assert found["missing"] == {"missing_image": 3, "not_an_image": 3}
    assert "6 samples could not be scored" in said
    assert metric(found, "N-acc", subset="no target") <= 1 / 3
    rows = pq.read_table(output / "samples.parquet").to_pylist()
    errors = {row["image_key"]: row["error"] for row in rows if row["error"]}
    assert file_name(6) in errors["COCO_train2014_000000000006"]["message"]
    assert all(row["area"] is not None for row in rows)  # their truth is still in the union

    code, _, said = run(capsys, tiny_model_dir, tmp_path / "nothing", "-o", output)
    assert code == 2
    assert "--format" in said


def test_images_count_as_stored(made: MadeBenchmarks):
    """Benchmarks annotate the pixels of the file; a camera's orientation must not turn them."""
    picture = Image.open(made.images / "train2014" / file_name(IMAGES[0]))
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by a quarter
    turned = io.BytesIO()
    picture.save(turned, "JPEG", exif=exif, quality=95)
    assert Image.open(turned).getexif()[0x0112] == 6
    kept = Image.open(io.BytesIO(ignore_orientation(turned.getvalue())))
    assert 0x0112 not in kept.getexif()
    np.testing.assert_array_equal(np.asarray(kept), np.asarray(Image.open(turned)))
    assert ignore_orientation(b"GIF89a") == b"GIF89a"
