"""A real S3 server and a real Ray head for tests, as processes of their own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import s3fs

ROOT = Path(__file__).resolve().parents[2]


def wait_until(true: Callable[[], object], seconds: float, what: str) -> None:
    """Poll until `true()`; AssertionError naming `what` after `seconds`."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"{what}: not within {seconds:.0f} s"
        time.sleep(0.1)


def free_port() -> int:
    """A port that nothing listens on, with the one 10,000 above it free too (SeaweedFS's gRPC)."""
    while True:
        with socket.socket() as first, socket.socket() as second:
            first.bind(("127.0.0.1", 0))
            port = int(first.getsockname()[1])
            if port > 55_000:
                continue
            try:
                second.bind(("127.0.0.1", port + 10_000))
            except OSError:
                continue
            return port


@dataclass
class S3Server:
    """SeaweedFS on a folder. Survives `kill -9`: what was acknowledged is there after `start`."""

    folder: Path
    ports: tuple[int, int, int, int, int]
    process: subprocess.Popen[bytes] | None = None

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AWS_ACCESS_KEY_ID": "testkey",
            "AWS_SECRET_ACCESS_KEY": "testsecret",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.ports[0]}",
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def filesystem(self) -> s3fs.S3FileSystem:
        """A client of this server that caches nothing."""
        return s3fs.S3FileSystem(
            key="testkey",
            secret="testsecret",
            endpoint_url=self.environment["AWS_ENDPOINT_URL"],
            use_listings_cache=False,
            skip_instance_cache=True,
        )

    def start(self) -> None:
        config = self.folder / "s3.json"
        credentials = [{"accessKey": "testkey", "secretKey": "testsecret"}]
        actions = ["Admin", "Read", "List", "Tagging", "Write"]
        identity = {"name": "admin", "credentials": credentials, "actions": actions}
        config.write_text(json.dumps({"identities": [identity]}))
        s3, master, volume, filer, admin = self.ports
        weed = shutil.which("weed") or str(Path(sys.executable).with_name("weed"))
        command = [
            *(weed, "-logtostderr=true", "mini", f"-dir={self.folder / 'data'}"),
            *("-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-s3.port={s3}", f"-s3.config={config}"),
            *("-s3.port.iceberg=0", "-s3.port.lance=0", f"-master.port={master}"),
            *(f"-volume.port={volume}", f"-filer.port={filer}", "-admin.ui=false"),
            *(f"-admin.port={admin}", "-webdav=false", "-master.telemetry=false"),
        ]
        (self.folder / "data").mkdir(parents=True, exist_ok=True)
        log = (self.folder / "weed.log").open("ab")
        environment = os.environ | {"GOMEMLIMIT": "200MiB"}
        self.process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)

        def ready() -> bool:
            try:
                self.filesystem().ls("")
            except Exception:
                return False
            return True

        wait_until(ready, 60, "the S3 server")

    def kill(self) -> None:
        """Kill -9, as when its machine goes away."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()


@contextmanager
def s3_server(folder: Path) -> Iterator[S3Server]:
    server = S3Server(folder, tuple(free_port() for _ in range(5)))  # type: ignore[arg-type]
    server.start()
    try:
        yield server
    finally:
        server.kill()


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
