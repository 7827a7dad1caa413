"""`sspsam train --data`: benchmarks and our own annotations, with and without cached features."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from jobs.train import main
from sspsam import SSPSAM
from sspsam.data import DataConfig
from sspsam.errors import DataError
from sspsam.training.feature_store import FeatureStore
from sspsam.training.record_batches import RecordOptions
from sspsam.training.stages import masks
from sspsam.training.train_config import TrainConfig
from sspsam.training.training_data import RecordData, SceneData
from tests.pipeline.annotation_fixture import make_dataset
from tests.sspsam.data.benchmarks import MadeBenchmarks, make_benchmarks

SHORT = ("--recipe", "finetune", "--epochs", "0", "--steps", "2", "--warmup", "1", "--images", "2")
SHORT += ("--phrases", "2", "--validation-scenes", "2", "--device", "cpu", "--keep", "last")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> MadeBenchmarks:
    return make_benchmarks(tmp_path_factory.mktemp("benchmarks"))


@pytest.mark.parametrize("form", ["refer", "grefcoco", "phrasecut", "authors", "merge", "annotations"])
def test_every_format_trains(made: MadeBenchmarks, tiny_model_dir: Path, tmp_path: Path, capsys, form: str):
    split = ("--validation-split", "val")
    data = {"refer": made.refer, "grefcoco": made.grefcoco, "phrasecut": made.phrasecut}.get(form)
    if form in ("authors", "merge"):
        data = made.authors("refcoco" if form == "authors" else "merge")
        split = (*split, "--images-at", str(made.images))
    if form == "merge":
        split = (*split, "--stage", "boxes")
    if form == "annotations":
        data, split = make_dataset(tmp_path / "made", images=8).truth, ()
    output = tmp_path / "run"
    code = main([str(output), "--from", str(tiny_model_dir), "--data", str(data), *split, *SHORT])
    printed = capsys.readouterr()
    assert code == 0, printed.err
    before = SSPSAM.from_pretrained(tiny_model_dir, device="cpu").state_dict()
    after = SSPSAM.from_pretrained(output / "model", device="cpu").state_dict()
    moved = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
    assert "ssp_encoder" in moved
    assert "clip" not in moved


def test_the_same_output_is_not_taken_for_another_run(
    made: MadeBenchmarks, tiny_model_dir: Path, tmp_path: Path, capsys, monkeypatch
):
    """Finished with one dataset: another one, another flag or another start are refused by name."""
    output = tmp_path / "run"
    start = ["--from", str(tiny_model_dir), "--validation-split", "val", *SHORT]
    assert main([str(output), "--data", str(made.grefcoco), *start]) == 0, capsys.readouterr().err
    monkeypatch.chdir(made.grefcoco.parent)
    assert main([str(output), "--data", made.grefcoco.name, *start]) == 0  # the same, from elsewhere
    assert "finished before" in capsys.readouterr().out
    # So is a start named from elsewhere, and a run that a version finished which told less of itself.
    monkeypatch.chdir(tiny_model_dir.parent)
    finished = output / "1-masks" / "finished"
    told = json.loads(finished.read_text())
    later = ("from_sha256", "training_records", "validation_records", "vision_rate")
    kept = {name: value for name, value in told.items() if name not in later}
    finished.write_text(json.dumps(kept | {"from": tiny_model_dir.name}))
    again = ["--from", tiny_model_dir.name, *start[2:]]
    assert main([str(output), "--data", str(made.grefcoco), *again]) == 0, capsys.readouterr().err
    assert "finished before" in capsys.readouterr().out
    finished.write_text(json.dumps(told))
    # The same flags, and other phrases in the same file.
    refs = made.grefcoco / "grefs(unc).json"
    before = refs.read_text()
    refs.write_text(before.replace('"sent": "', '"sent": "that '))
    assert main([str(output), "--data", str(made.grefcoco), *start]) == 2
    assert "training_records: " in capsys.readouterr().err
    refs.write_text(before)
    for changed, said in (
        (["--data", str(made.refer)], "data: "),
        (["--data", str(made.grefcoco), "--flip", "0"], "flip: 0.5 there, 0.0 here"),
        (["--data", str(made.grefcoco), "--steps", "3"], "steps: 2 there, 3 here"),
        (["--data", str(made.grefcoco), "--from", "tiny"], "from: "),
    ):
        assert main([str(output), *start, *changed]) == 2
        error = capsys.readouterr().err
        assert said in error
        assert "another OUTPUT" in error
    finished.unlink()  # a run that was stopped knows its start as well
    assert main([str(output), *start, "--data", str(made.grefcoco), "--from", "tiny"]) == 2
    assert "from: " in capsys.readouterr().err
    diverged = ["--data", str(made.grefcoco), *start, "--steps", "30", "--learning-rate", "1e12"]
    assert main([str(tmp_path / "diverged"), *diverged]) == 1
    assert "--learning-rate" in capsys.readouterr().err
    assert not (tmp_path / "diverged" / "model").exists()


def test_workers_in_another_folder_find_every_path(tmp_path: Path, monkeypatch):
    """Every flag of the data that takes a path; fixed roots and URLs stay as they are."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "curated" / "annotations").mkdir(parents=True)
    roots = ("pictures", "s3://old/in=./new", "s3://bucket/in")
    config = DataConfig("curated", "annotations", images="images", image_root=roots)
    whole = RecordData(config, features="cache").absolute()
    home = str(tmp_path)
    assert whole.data.dataset == f"{home}/curated"
    assert whole.data.images == f"{home}/images"
    assert whole.features == f"{home}/cache"
    assert whole.data.image_root == (f"{home}/pictures", f"s3://old/in={home}/new", "s3://bucket/in")
    assert SceneData("run").absolute() == SceneData(f"{home}/run")


def test_misuse_is_told(made: MadeBenchmarks, tiny_model_dir: Path, tmp_path: Path, capsys):
    def said(*arguments: object) -> str:
        assert main([str(tmp_path / "run"), *map(str, arguments)]) == 2
        return capsys.readouterr().err

    assert "--format" in said("--data", tmp_path)
    assert "--flip" in said("--data", made.refer, "--flip", 2)
    assert "--cache-features" in said("--data", made.refer, "--cache-features", *SHORT)
    assert "go together" in said("--data", made.refer, "--clip", "x", *SHORT)
    merge = ("--data", made.authors("merge"), "--images-at", made.images)
    assert "boxes alone do not do" in said(*merge, "--from", tiny_model_dir, *SHORT)


def test_cached_features(
    made: MadeBenchmarks, tiny_model: SSPSAM, tiny_model_dir: Path, tmp_path: Path, capsys, cluster
):
    """The cache holds what the towers give, both ways round, and training from it gives the losses
    that training from pictures gives."""
    output = tmp_path / "run"
    arguments = [str(output), "--from", str(tiny_model_dir), "--data", str(made.grefcoco)]
    arguments += ["--validation-split", "val", "--cache-features", "--no-translate", *SHORT]
    assert main(arguments) == 0, capsys.readouterr().err
    store = FeatureStore(str(output / "features"))
    assert len(store) == 8
    rows = pq.read_table(output / "features" / "annotations").to_pylist()
    assert [row["status"] for row in rows] == ["no_phrase"] * 4

    data = RecordData(
        DataConfig(str(made.grefcoco), "grefcoco", split="train"),
        validation_split="val",
        options=RecordOptions(flip=0.5),
    )
    config = TrainConfig(stage="masks", images=4, phrases=3)
    cpu = torch.device("cpu")
    plain, _ = data.sources(config, tiny_model.config)
    cached, _ = RecordData(data.data, "val", data.options, str(output / "features")).sources(
        config, tiny_model.config
    )
    for step in range(2):
        seen, kept = plain.batch(step, 4, 3, cpu), cached.batch(step, 4, 3, cpu)
        assert seen.phrases == kept.phrases
        assert kept.sam_pixels.numel() == 0
        assert kept.clip_tokens is not None
        with torch.no_grad():
            features = tiny_model.encode_image(seen.clip_pixels, seen.sam_pixels)
            torch.testing.assert_close(kept.clip_tokens, features.clip_tokens, rtol=2e-3, atol=2e-3)
            torch.testing.assert_close(kept.sam_embedding, features.sam_embedding, rtol=2e-3, atol=2e-3)
            losses = [masks(tiny_model, batch, config, None) for batch in (seen, kept)]
        for name in losses[0]:
            assert float(losses[0][name]) == pytest.approx(float(losses[1][name]), rel=2e-2)

    # The same command finds everything done; another model's features are refused.
    files = sorted((output / "features" / "features").rglob("*.parquet"))
    before = [file.stat().st_mtime_ns for file in files]
    assert main(arguments) == 0
    assert [file.stat().st_mtime_ns for file in files] == before
    other = tmp_path / "other"
    torch.manual_seed(1)
    SSPSAM(tiny_model.config).save_pretrained(other)
    features = ["--features", str(output / "features")]
    arguments[0], arguments[2] = str(tmp_path / "run2"), str(other)
    assert main([*arguments, *features]) == 2
    assert "--model was" in capsys.readouterr().err
    with pytest.raises(DataError, match="no features of the image nobody"):
        store.get("nobody", False)
    tokens, embedding, width, height = store.get("COCO_train2014_000000000001", True)
    assert (width, height) == (96, 72)
    assert tokens.dtype == embedding.dtype == torch.float16
    assert np.isfinite(tokens.numpy()).all()
