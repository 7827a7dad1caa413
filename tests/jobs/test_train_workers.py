"""Two processes train together through Ray Train; one is killed; the run ends as if none had been.

Most of such a run is its start, so all of them share one Ray, and two go on side by side.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from sspsam import SSPSAM
from tests.processes import wait_until
from tests.sspsam.data.benchmarks import MadeBenchmarks, make_benchmarks

STEPS = 10


@dataclass(frozen=True)
class Run:
    """A training that goes on, what it says in a file."""

    output: Path
    log: Path
    process: subprocess.Popen[bytes]

    def end(self) -> tuple[int, str]:
        """(exit code, what it said), once it has ended."""
        return self.process.wait(timeout=600), self.log.read_text()

    def checkpoint(self) -> dict:
        last = sorted((self.output / "1-masks").glob("checkpoint_*/checkpoint.pt"))[-1]
        return torch.load(last, weights_only=True)

    def counted_a_checkpoint(self) -> bool:
        """A folder is there before Ray Train's controller counts it; then it notes that in a file."""
        assert self.process.poll() is None, self.log.read_text()[-3000:]
        notes = self.output / "1-masks" / "checkpoint_manager_snapshot.json"
        return notes.exists() and "checkpoint_2" in notes.read_text()

    def worker(self) -> int | None:
        """The process id of its second worker, once it has said it."""
        found = re.search(r"pid=(\d+)\) world_rank=1", self.log.read_text())
        return int(found[1]) if found else None


Begin = Callable[..., Run]


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> MadeBenchmarks:
    return make_benchmarks(tmp_path_factory.mktemp("workers") / "bench")


@pytest.fixture(scope="module")
def begin(bench: MadeBenchmarks, tiny_model_dir: Path, cluster: None) -> Iterator[Begin]:
    """Begins a run by its name and further flags, in a folder not the cluster's, where its data is."""
    from ray import get_runtime_context

    folder = bench.root.parent
    environment = os.environ | {
        "RAY_AUTH_MODE": "disabled",
        "RAY_ADDRESS": get_runtime_context().gcs_address,
        "RAY_USAGE_STATS_ENABLED": "0",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    data = str(bench.grefcoco.relative_to(folder))
    flags = ["--from", str(tiny_model_dir), "--data", data, "--validation-split", "val"]
    flags += ["--recipe", "finetune", "--epochs", "0", "--steps", str(STEPS), "--warmup", "2"]
    flags += ["--accumulate", "2", "--images", "1", "--phrases", "2", "--checkpoint-every", "2"]
    flags += ["--validate-every", str(STEPS), "--keep", "last", "--workers", "2", "--cpus-per-worker", "0.5"]
    begun: list[Run] = []

    def begin(name: str, *more: str) -> Run:
        log = folder / f"{len(begun)}.log"
        command = [sys.executable, "-m", "jobs.train", str(folder / name), *flags, *more]
        with log.open("wb") as said:
            process = subprocess.Popen(command, env=environment, cwd=folder, stdout=said, stderr=said)
        begun.append(Run(folder / name, log, process))
        return begun[-1]

    yield begin
    for run in begun:
        run.process.kill()
        run.process.wait()


@pytest.fixture(scope="module")
def calm(begin: Begin) -> Run:
    """A run that nothing disturbs."""
    return begin("calm")


@pytest.mark.chaos
@pytest.mark.timeout(1800)
def test_a_killed_worker_costs_no_step(calm: Run, begin: Begin, tiny_model_dir: Path) -> None:
    stormy = begin("stormy")
    wait_until(stormy.counted_a_checkpoint, 400, "a checkpoint")
    wait_until(stormy.worker, 20, "the worker's process id")
    worker = stormy.worker()
    assert b"RayTrainWorker" in Path(f"/proc/{worker}/cmdline").read_bytes()
    os.kill(worker, signal.SIGKILL)
    runs = (calm, stormy)
    for run in runs:
        code, said = run.end()
        assert code == 0, said[-3000:]
        assert ("resuming masks at step" in said) == (run is stormy)

    contents = [run.checkpoint() for run in runs]
    for content in contents:
        assert content["step"] == STEPS
        counted = {int(entry["step"]) for entry in content["optimizer"]["state"].values()}
        assert max(counted) == STEPS
    for name, value in contents[0]["model"].items():
        torch.testing.assert_close(contents[1]["model"][name], value, rtol=1e-4, atol=1e-5)
    trained = SSPSAM.from_pretrained(stormy.output / "model", device="cpu").state_dict()
    untrained = SSPSAM.from_pretrained(tiny_model_dir, device="cpu").state_dict()
    moved = [name for name, value in trained.items() if not torch.equal(value, untrained[name])]
    assert any(name.startswith("ssp_encoder.") for name in moved)
    assert not any(name.startswith(("clip.", "sam.image_encoder.")) for name in moved)


@pytest.mark.chaos
@pytest.mark.timeout(900)
def test_workers_find_relative_data_and_do_not_retry_what_will_not_pass(
    tmp_path: Path, bench: MadeBenchmarks, calm: Run, begin: Begin
) -> None:
    code, said = calm.end()
    assert code == 0, said[-3000:]
    assert (calm.output / "model" / "model.safetensors").exists()

    # What only a worker meets ends the run too, at its first attempt.
    wild = begin("wild", "--learning-rate", "1e12")

    # What is finished again, and with another flag, a stage that needs scenes: no worker starts.
    pictures = tmp_path / "broken"
    shutil.copytree(bench.root, pictures)
    for picture in (pictures / "images").rglob("*.jpg"):
        picture.write_bytes(b"no picture")
    cases = (
        ("calm", (), 0, f"model: {calm.output}/model"),
        ("calm", ("--flip", "0"), 2, "flip: 0.5 there, 0.0 here"),
        ("aligned", ("--stage", "align"), 2, "--stage align is trained on scenes"),
        ("unread", ("--data", str(pictures / "grefcoco")), 2, "50 images in a row cannot be read"),
    )
    runs = [begin(name, *flags) for name, flags, _, _ in cases]
    for run, (_, _, wanted, message) in zip(runs, cases, strict=True):
        code, said = run.end()
        assert code == wanted, said[-3000:]
        assert message in said
        assert "RayTrainWorker" not in said
        assert "resuming" not in said
    code, said = wild.end()
    assert code == 1, said[-3000:]
    assert re.match(r"sspsam train: stage masks, step \d+: .*--learning-rate", said.splitlines()[-1])
    assert said.count("Attempting to start training worker group") == 1
