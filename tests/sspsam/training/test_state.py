"""A checkpoint on disk is whole whenever its writer dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from sspsam.training.state import TrainState, save_state
from sspsam.training.train_config import TrainConfig

_KILLED = """
import sys, torch
from pathlib import Path
from sspsam.training.train_config import TrainConfig
from sspsam.training.state import TrainState, save_state
model = torch.nn.Linear(1500, 1500)
optimizer = torch.optim.AdamW(model.parameters())
state = TrainState(0, model, optimizer, {"weight": model.weight.detach().clone()})
while True:
    state.step += 1
    with torch.no_grad():
        model.weight.fill_(state.step)
        state.ema["weight"].fill_(state.step)
    save_state(state, TrainConfig(), Path(sys.argv[1]))
    print(state.step, flush=True)
"""


def test_sigkill_while_saving_leaves_a_whole_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    for kill in range(3):
        with subprocess.Popen(
            [sys.executable, "-c", _KILLED, str(path)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        ) as process:
            assert process.stdout is not None
            saved = [int(process.stdout.readline()) for _ in range(2)][-1]
            time.sleep(0.004 * kill)  # somewhere inside the next save
            process.send_signal(signal.SIGKILL)
        content = torch.load(path, weights_only=True)
        assert content["step"] >= saved
        assert (content["model"]["weight"] == content["step"]).all()
        assert (content["ema"]["weight"] == content["step"]).all()


def test_a_failed_save_keeps_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = torch.nn.Linear(2, 2)
    state = TrainState(1, model, torch.optim.AdamW(model.parameters()), {})
    path = tmp_path / "checkpoint.pt"
    save_state(state, TrainConfig(), path)
    before = path.read_bytes()

    def fail(*arguments: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(torch, "save", fail)
    with pytest.raises(OSError, match="no space"):
        save_state(state, TrainConfig(), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
