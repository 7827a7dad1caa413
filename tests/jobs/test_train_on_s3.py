"""Benchmark, true masks, cached features, checkpoints, model and scores, all in a bucket that only
--storage-options lead to."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from jobs import evaluate, train
from sspsam import SSPSAM
from sspsam.training.feature_store import FeatureStore
from tests.s3_server import s3_server
from tests.sspsam.data.benchmarks import make_benchmarks

pytestmark = [pytest.mark.usefixtures("cluster"), pytest.mark.timeout(900)]

SHORT = ("--recipe", "finetune", "--epochs", "0", "--steps", "2", "--warmup", "1", "--images", "2")
SHORT += (
    "--phrases",
    "2",
    "--validation-scenes",
    "2",
    "--checkpoint-every",
    "1",
    "--no-translate",
    "--keep",
    "last",
)


@pytest.mark.chaos
def test_train_and_evaluate_in_a_bucket(
    tmp_path: Path, micro_model: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_ENDPOINT_URL", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    made = make_benchmarks(tmp_path / "made")
    with s3_server(tmp_path / "server") as s3:
        bucket, fs = f"s3://{s3.bucket}", s3.filesystem()
        fs.put(f"{made.root}/", f"{s3.bucket}/made/", recursive=True)
        options = ("--storage-options", json.dumps(s3.options))
        data = ("--data", f"{bucket}/made/data_seg/anns/refcoco.json", "--images-at", f"{bucket}/made/images")
        started = ("--from", str(micro_model), "--validation-split", "val", *options, *SHORT)
        command = [f"{bucket}/run", *data, *started, "--cache-features", "--cpus-per-worker", "0.5"]
        assert train.main(command) == 0, capsys.readouterr().err
        assert f"model: {bucket}/run/model" in capsys.readouterr().out
        assert len(FeatureStore(f"{bucket}/run/features", s3.options)) == 8  # 4 images, both ways round
        assert fs.exists(f"{s3.bucket}/run/1-masks/finished")

        fs.get(f"{s3.bucket}/run/model/", f"{tmp_path / 'trained'}/", recursive=True)
        before = SSPSAM.from_pretrained(micro_model, device="cpu").state_dict()
        after = SSPSAM.from_pretrained(tmp_path / "trained", device="cpu").state_dict()
        moved = {name.split(".")[0] for name in before if not torch.equal(before[name], after[name])}
        assert "ssp_encoder" in moved
        assert "clip" not in moved
        # The same command finds everything done, and a second run takes the first one's features.
        assert train.main(command) == 0
        features = ("--features", f"{bucket}/run/features")
        assert train.main([str(tmp_path / "again"), *data, *started, *features]) == 0
        trained = SSPSAM.from_pretrained(tmp_path / "again" / "model", device="cpu").state_dict()
        for name, value in after.items():
            torch.testing.assert_close(trained[name], value, rtol=1e-4, atol=1e-5)

        capsys.readouterr()
        quiet = ("--json", "--replicas", "1", "--device", "cpu", "--protocol", "both")
        scores = []
        for root, where, more in ((bucket, f"{bucket}/scores", options), (str(tmp_path), str(tmp_path), ())):
            anns, images = f"{root}/made/data_seg/anns/grefcoco.json", f"{root}/made/images"
            arguments = [str(tmp_path / "trained"), anns, "--images", images, "-o", f"{where}/out", *more]
            assert evaluate.main([*arguments, *quiet]) == 0
            scores.append(json.loads(capsys.readouterr().out)["protocols"])
        assert scores[0] == scores[1]
        assert fs.exists(f"{s3.bucket}/scores/out/metrics.md")
