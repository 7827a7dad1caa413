"""Processes that are killed, and two of them on one OUTPUT, on the store behind the proxy."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest

from tests.jobs.campaign.campaign import ACCOUNTED, Campaign
from tests.processes import descendants, wait_until
from tests.reliability import record

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(900)]


def _replicas() -> list[int]:
    """Process ids of the replicas below this process."""
    found = []
    for pid in descendants(os.getpid()):
        try:
            if b"Replica" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
        except OSError:
            continue
    return found


def test_a_replica_that_is_killed(campaign: Campaign) -> None:
    name, output = "a replica killed", "s3://bucket/replica"
    after, killed, before = campaign.rng(name).randrange(1, 6), [], set(_replicas())

    def kill() -> None:
        wait_until(lambda: campaign.store.chunks >= after, 200, "the first chunks")
        for pid in set(_replicas()) - before:
            os.kill(pid, signal.SIGKILL)
            killed.append(pid)

    campaign.store.begin(None)
    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    code, said, seconds = campaign.run(output)
    killer.join(5)
    assert code == 0, said
    assert killed
    left = campaign.check(output)
    done = "SIGKILL to its process at a random chunk"
    record(
        name, done, "yes", f"exit 0 of the same run: {ACCOUNTED}", max(0, seconds - campaign.seconds), left
    )


def _killed_after(campaign: Campaign, run: subprocess.Popen[bytes], chunks: int, group: bool = False) -> None:
    """SIGKILL once so many chunk files are written; `group`: to everything that the process started too."""
    wait_until(lambda: campaign.store.chunks >= chunks or run.poll() is not None, 300, "chunks")
    for pid in descendants(run.pid) if group else {run.pid}:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    assert run.wait(60) == -signal.SIGKILL, "it ended before it was killed"


def test_a_driver_that_is_killed_twice(campaign: Campaign, tmp_path: Path) -> None:
    name, output, log = "driver killed twice", "s3://bucket/twice", tmp_path / "log"
    rng = campaign.rng(name)
    for _ in range(2):
        campaign.store.begin(None)
        _killed_after(campaign, campaign.start(output, log), rng.randrange(1, 5))
    began = time.monotonic()
    code = campaign.start(output, log).wait(600)
    assert code == 0, log.read_text()
    left = campaign.check(output)
    done = "SIGKILL at a random chunk, the same command, SIGKILL again"
    record(name, done, "yes", f"the same command: exit 0, {ACCOUNTED}", time.monotonic() - began, left)


def test_two_drivers_on_one_output(campaign: Campaign, tmp_path: Path) -> None:
    name, output = "two drivers on one OUTPUT", "s3://bucket/both"
    first = campaign.start(output, tmp_path / "first.log")
    pause = campaign.rng(name).uniform(0, 5)
    time.sleep(pause)
    second = campaign.start(output, tmp_path / "second.log")
    codes = first.wait(600), second.wait(600)
    said = (tmp_path / "first.log").read_text() + (tmp_path / "second.log").read_text()
    assert "Traceback" not in said
    assert codes == (0, 0), said
    left = campaign.check(output)
    record(
        name, f"the second {pause:.1f} s after the first", "yes", f"exit 0 of both: {ACCOUNTED}", None, left
    )


def test_a_head_that_is_lost_and_the_job_begun_again(
    campaign: Campaign, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its machine is gone: the driver, the cluster's directory, the node and its workers, all at once."""
    name, output, log = "head lost and the job begun again", "s3://bucket/head", tmp_path / "log"
    monkeypatch.setenv("RAY_ADDRESS", "local")
    campaign.store.begin(None)
    _killed_after(campaign, campaign.start(output, log), campaign.rng(name).randrange(1, 5), group=True)
    began = time.monotonic()
    code = campaign.start(output, log).wait(600)
    assert code == 0, log.read_text()
    left = campaign.check(output)
    done = (
        "SIGKILL to all its processes at a random chunk (driver, GCS, raylet, workers), the job on a new one"
    )
    record(name, done, "yes", f"exit 0: {ACCOUNTED}", time.monotonic() - began, left)
