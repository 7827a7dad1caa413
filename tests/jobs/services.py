"""A real Ray head for tests, as a process of its own, and jobs submitted to it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.processes import free_port, wait_until

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Submission:
    """A submitted job that is being followed."""

    process: subprocess.Popen[bytes]
    log: Path

    def wait_until(self, true: Callable[[], object], seconds: float, what: str) -> None:
        """Poll until `true()`; AssertionError with the job's output if it ends before."""
        end = time.monotonic() + seconds
        while not true():
            assert self.process.poll() is None, f"{what}: the job ended\n{self.log.read_text()}"
            assert time.monotonic() < end, f"{what}: not yet\n{self.log.read_text()}"
            time.sleep(0.2)

    def finish(self, seconds: float) -> tuple[int, str]:
        """(exit code, output) once the job has ended."""
        code = self.process.wait(timeout=seconds)
        return code, self.log.read_text()


@dataclass(frozen=True)
class RayHead:
    """A head started by `ray start --head --block`, with its job server."""

    address: str
    dashboard: str
    metrics: str
    environment: dict[str, str]

    def submit(self, log: Path, *arguments: str) -> Submission:
        """`ray job submit --working-dir . -- python -m jobs.annotate ARGUMENTS`, output to `log`."""
        command = [
            *(str(Path(sys.executable).with_name("ray")), "job", "submit"),
            *("--address", self.dashboard, "--working-dir", "."),
            *("--", "python", "-m", "jobs.annotate", *arguments),
        ]
        with log.open("wb") as sink:
            process = subprocess.Popen(command, cwd=ROOT, env=self.environment, stdout=sink, stderr=sink)
        return Submission(process, log)


@contextmanager
def ray_head(folder: Path, environment: dict[str, str], cpus: int = 2) -> Iterator[RayHead]:
    gcs, dashboard, metrics, agent, client = (free_port() for _ in range(5))
    clean = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    environment = clean | environment | {"RAY_AUTH_MODE": "disabled", "OMP_NUM_THREADS": "1"}
    # The job runs `python`: this one.
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    command = [
        *(str(Path(sys.executable).with_name("ray")), "start", "--head", "--block"),
        *(f"--port={gcs}", "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}"),
        *(f"--metrics-export-port={metrics}", f"--dashboard-agent-listen-port={agent}"),
        *(f"--ray-client-server-port={client}", f"--num-cpus={cpus}", "--disable-usage-stats"),
        f"--object-store-memory={2**28}",
    ]
    with (folder / "ray.log").open("ab") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    head = RayHead(
        f"127.0.0.1:{gcs}",
        f"http://127.0.0.1:{dashboard}",
        f"http://127.0.0.1:{metrics}",
        environment,
    )

    def ready() -> bool:
        import urllib.request

        assert process.poll() is None, (folder / "ray.log").read_text()
        try:
            with urllib.request.urlopen(f"{head.dashboard}/api/jobs/", timeout=5) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    try:
        wait_until(ready, 120, "the Ray head")
        yield head
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
