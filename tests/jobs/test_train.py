"""`sspsam train` as a user runs it: a real process, killed, resumed, misused; and two minutes of learning."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from jobs import train
from sspsam import SSPSAM

_QUICK = [
    "--stage",
    "boxes",
    "--images",
    "1",
    "--phrases",
    "2",
    "--warmup",
    "1",
    "--validation-scenes",
    "1",
    "--threads",
    "1",
    "--device",
    "cpu",
]


def _command(*arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "jobs.train", *map(str, arguments)]


def _run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        _command(*arguments), capture_output=True, text=True, timeout=240, check=False, env=_environment()
    )


def _environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.mark.chaos
def test_a_killed_run_goes_on_and_ends_as_if_it_had_not_been(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [*_QUICK, "--steps", "24", "--checkpoint-every", "4", "--validate-every", "24"]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert train.main([str(whole), *flags]) == 0
    said = capsys.readouterr().out
    assert re.search(r"images/s, \d+:\d\d left", said)
    assert f"model: {whole / 'model'}" in said
    checkpoint = killed / "1-boxes" / "checkpoint.pt"
    with subprocess.Popen(
        _command(killed, *flags), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=_environment()
    ) as process:
        deadline = time.monotonic() + 120
        while not checkpoint.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    assert not (killed / "model").exists()
    resumed = _run(killed, *flags)
    assert resumed.returncode == 0, resumed.stderr
    assert re.search(r"resuming boxes at step [1-9]\d* of 24", resumed.stdout)
    first, second = (SSPSAM.from_pretrained(run / "model", device="cpu") for run in (whole, killed))
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name
    assert list((whole / "1-boxes" / "validation").glob("*.png"))
    assert list((whole / "tensorboard").glob("events*"))
    capsys.readouterr()
    assert train.main([str(killed), *flags]) == 0
    assert "finished before" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--stage", "nothing"], "--stage"),
        ([*_QUICK, "--steps", "0"], "--steps"),
        ([*_QUICK, "--from", "no-such-model"], "no-such-model"),
    ],
)
def test_misuse_is_told_in_one_line(
    flags: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train.main([str(tmp_path / "run"), *flags]) == 2
    said = capsys.readouterr().err
    assert said.startswith("sspsam train: ")
    assert told in said


@pytest.mark.chaos
@pytest.mark.timeout(600)
def test_two_minutes_from_scratch_move_loss_and_held_out_iou(tmp_path: Path) -> None:
    """SAM's stage, whose held-out IoU moves first; new scenes all the time, one process."""
    flags = [
        "--stage",
        "points",
        "--steps",
        "100000",
        "--images",
        "8",
        "--phrases",
        "2",
        "--learning-rate",
        "8e-4",
        "--warmup",
        "60",
    ]
    flags += [
        "--validate-every",
        "40",
        "--validation-scenes",
        "16",
        "--checkpoint-every",
        "40",
        "--device",
        "cpu",
    ]
    with subprocess.Popen(
        _command(tmp_path / "run", *flags), stdout=subprocess.PIPE, text=True, env=dict(os.environ)
    ) as process:
        try:
            told, _ = process.communicate(timeout=120)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGTERM)
            told, _ = process.communicate(timeout=120)
    assert process.returncode == 143
    assert "the same command goes on from there" in told
    dice = [float(value) for value in re.findall(r"dice ([\d.]+)", told)]
    iou = [float(value) for value in re.findall(r"miou ([\d.]+)", told)]
    assert len(iou) >= 2
    assert sum(dice[-3:]) / 3 < 0.8 * dice[0]
    assert iou[-1] > iou[0] + 0.1
