"""Two processes train together through Ray Train; one is killed; the run ends as if none had been."""

from __future__ import annotations

import functools
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from sspsam import SSPSAM
from tests.processes import descendants
from tests.sspsam.data.benchmarks import make_benchmarks

STEPS = 16


def training_workers(root: int) -> list[int]:
    """The Ray Train workers that a process started."""
    named = []
    for pid in descendants(root):
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if b"RayTrainWorker" in command:
            named.append(pid)
    return sorted(named)


def checkpoints(output: Path) -> list[Path]:
    return sorted((output / "1-masks").glob("checkpoint_*/checkpoint.pt"))


def names_a_checkpoint(snapshot: Path) -> bool:
    return snapshot.exists() and "checkpoint_2" in snapshot.read_text()


def start(
    output: Path, data: Path, model: Path, *options: str, folder: Path | None = None, ray: str = "local"
) -> subprocess.Popen[str]:
    environment = os.environ | {
        "RAY_AUTH_MODE": "disabled",
        "RAY_ADDRESS": ray,
        "RAY_USAGE_STATS_ENABLED": "0",
        "OMP_NUM_THREADS": "1",
    }
    command = [sys.executable, "-m", "jobs.train", str(output), "--from", str(model)]
    command += ["--data", str(data), "--validation-split", "val", "--recipe", "finetune"]
    command += ["--epochs", "0", "--steps", str(STEPS), "--warmup", "2", "--accumulate", "2"]
    command += ["--images", "1", "--phrases", "2", "--checkpoint-every", "2"]
    command += [
        "--validate-every",
        str(STEPS),
        "--keep",
        "last",
        "--workers",
        "2",
        "--cpus-per-worker",
        "0.5",
    ]
    return subprocess.Popen(
        [*command, *options],
        env=environment | {"PYTHONPATH": str(Path(__file__).parents[2])},
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.chaos
@pytest.mark.timeout(1800)
def test_a_killed_worker_costs_no_step(tmp_path: Path, tiny_model_dir: Path):
    data = make_benchmarks(tmp_path / "bench").grefcoco
    calm = start(tmp_path / "calm", data, tiny_model_dir)
    said, _ = calm.communicate(timeout=600)
    assert calm.returncode == 0, said[-3000:]

    output = tmp_path / "stormy"
    stormy = start(output, data, tiny_model_dir)
    end = time.monotonic() + 400
    # A folder is there before Ray Train's controller counts it; then it notes that in a file.
    counted_in = output / "1-masks" / "checkpoint_manager_snapshot.json"
    while not names_a_checkpoint(counted_in) and time.monotonic() < end and stormy.poll() is None:
        time.sleep(0.2)
    workers = training_workers(stormy.pid)
    assert len(workers) == 2
    os.kill(workers[-1], signal.SIGKILL)
    said, _ = stormy.communicate(timeout=600)
    assert stormy.returncode == 0, said[-3000:]
    assert "resuming masks at step" in said

    contents = [
        torch.load(checkpoints(folder)[-1], weights_only=True) for folder in (tmp_path / "calm", output)
    ]
    for content in contents:
        assert content["step"] == STEPS
        counted = {int(entry["step"]) for entry in content["optimizer"]["state"].values()}
        assert max(counted) == STEPS
    for name, value in contents[0]["model"].items():
        torch.testing.assert_close(contents[1]["model"][name], value, rtol=1e-4, atol=1e-5)
    trained = SSPSAM.from_pretrained(output / "model", device="cpu").state_dict()
    untrained = SSPSAM.from_pretrained(tiny_model_dir, device="cpu").state_dict()
    moved = [name for name, value in trained.items() if not torch.equal(value, untrained[name])]
    assert any(name.startswith("ssp_encoder.") for name in moved)
    assert not any(name.startswith(("clip.", "sam.image_encoder.")) for name in moved)


@pytest.mark.chaos
@pytest.mark.timeout(900)
def test_workers_find_relative_data_and_do_not_retry_what_will_not_pass(
    tmp_path: Path, tiny_model_dir: Path, cluster: None
) -> None:
    from ray import get_runtime_context

    # One cluster for all, whose folder is not that of the commands.
    begin = functools.partial(start, folder=tmp_path, ray=get_runtime_context().gcs_address)
    bench = make_benchmarks(tmp_path / "bench")
    few = ("--steps", "2", "--validate-every", "2", "--validation-scenes", "1")
    data = bench.grefcoco.relative_to(tmp_path)
    output = tmp_path / "run"
    done = begin(output, data, tiny_model_dir, *few)
    said, _ = done.communicate(timeout=400)
    assert done.returncode == 0, said[-3000:]
    assert (output / "model" / "model.safetensors").exists()

    # What is finished again, and with another flag, a stage that needs scenes: no worker starts.
    pictures = tmp_path / "broken"
    shutil.copytree(bench.root, pictures)
    for picture in (pictures / "images").rglob("*.jpg"):
        picture.write_bytes(b"no picture")
    aligned, broken = tmp_path / "aligned", tmp_path / "unread"
    cases = (
        (output, (), 0, f"model: {output}/model"),
        (output, ("--flip", "0"), 2, "flip: 0.5 there, 0.0 here"),
        (aligned, ("--stage", "align"), 2, "--stage align is trained on scenes"),
        (broken, ("--data", str(pictures / "grefcoco")), 2, "50 images in a row cannot be read"),
    )
    runs = [begin(place, data, tiny_model_dir, *few, *flags) for place, flags, _, _ in cases]
    for run, (_, _, code, message) in zip(runs, cases, strict=True):
        said, _ = run.communicate(timeout=200)
        assert run.returncode == code, said[-3000:]
        assert message in said
        assert "RayTrainWorker" not in said
        assert "resuming" not in said
    # What only a worker meets ends the run too, at its first attempt.
    many = ("--steps", "30", "--learning-rate", "1e12")
    wild = begin(tmp_path / "wild", data, tiny_model_dir, *few, *many)
    said, _ = wild.communicate(timeout=400)
    assert wild.returncode == 1, said[-3000:]
    assert re.match(r"sspsam train: stage masks, step \d+: .*--learning-rate", said.splitlines()[-1])
    assert said.count("Attempting to start training worker group") == 1
