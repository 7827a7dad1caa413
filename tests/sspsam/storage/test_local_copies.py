"""Remote weights: cached once a version, whole or absent, and what was asked for."""

from __future__ import annotations

import hashlib
import logging
import os
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import fsspec
import pytest

from sspsam.errors import CheckpointError, ChecksumError, UnknownModelError
from sspsam.storage import local_copies as fetching
from sspsam.storage.local_copies import cache_folder, fetch

CONTENT = bytes(range(256)) * 500
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Handler(SimpleHTTPRequestHandler):
    requests: ClassVar[list[str]] = []
    cut: ClassVar[int] = 0  # answers still to be cut short

    def do_GET(self) -> None:
        type(self).requests.append(self.path)
        if type(self).cut > 0:
            type(self).cut -= 1
            self.send_response(200)
            self.send_header("Content-Length", str(len(CONTENT)))
            self.end_headers()
            self.wfile.write(CONTENT[:1000])
            self.close_connection = True
            return
        super().do_GET()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SSPSAM_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(fetching, "_FIRST_PAUSE_S", 0.01)
    return tmp_path / "cache"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(CONTENT)
    Handler.requests, Handler.cut = [], 0
    http = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
    thread = threading.Thread(target=http.serve_forever, args=(0.02,))
    thread.start()
    yield f"http://127.0.0.1:{http.server_address[1]}", folder
    http.shutdown()
    thread.join()
    http.server_close()


def whole_files(cache: Path) -> list[Path]:
    return [path for path in cache.rglob("*") if path.is_file()]


def test_http_is_downloaded_once_and_survives_cut_answers(cache, server, caplog) -> None:
    base, _ = server
    url = f"{base}/model.safetensors"
    Handler.cut = 2
    path = fetch(url, sha256=SHA256)
    assert path.read_bytes() == CONTENT
    assert path.name == "model.safetensors"
    assert whole_files(cache) == [path]
    asked = len(Handler.requests)
    assert fetch(url, sha256=SHA256.upper()) == path
    assert len(Handler.requests) == asked  # a digest that fits needs no network
    assert fetch(url) == path
    with pytest.raises(ChecksumError, match="not the file that was requested"):
        fetch(url, sha256="0" * 64)
    with pytest.raises(UnknownModelError, match="no such file"):
        fetch(f"{base}/absent.pth")


def test_weights_of_the_same_size_are_fetched_again(cache, server) -> None:
    """This server has no ETags, as many have not: the date alone says that the file is another."""
    base, folder = server
    first = fetch(f"{base}/model.safetensors")
    newer = folder / "model.safetensors"
    newer.write_bytes(CONTENT[::-1])
    os.utime(newer, (2_000_000_000, 2_000_000_000))
    second = fetch(f"{base}/model.safetensors")
    assert (first.read_bytes(), second.read_bytes()) == (CONTENT, CONTENT[::-1])


def test_a_lost_server_leaves_the_cached_copy(cache, tmp_path, monkeypatch) -> None:
    # Not by caplog: other libraries in this process set levels of the loggers above this one.
    warned: list[str] = []
    own = logging.getLogger("sspsam.storage.local_copies")
    monkeypatch.setattr(own, "warning", lambda text, *values: warned.append(text % values))
    folder = tmp_path / "f"
    folder.mkdir()
    (folder / "m.pth").write_bytes(CONTENT)
    http = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder)))
    Handler.cut = 0
    thread = threading.Thread(target=http.serve_forever, args=(0.02,))
    thread.start()
    url = f"http://127.0.0.1:{http.server_address[1]}/m.pth"
    path = fetch(url)
    http.shutdown()
    thread.join()
    http.server_close()
    assert not warned
    assert fetch(url) == path
    assert len(warned) == 1
    assert "using the cached copy" in warned[0]
    with pytest.raises(CheckpointError, match="cannot be reached"):
        fetch(url + ".other")


def test_memory_store_versions_and_checksums(cache, tmp_path) -> None:
    store = fsspec.filesystem("memory")
    store.pipe("/bucket/model.pth", CONTENT)
    url = "memory://bucket/model.pth"
    with pytest.raises(ChecksumError):
        fetch(url, sha256="1" * 64)
    assert whole_files(cache) == []  # a wrong file leaves nothing behind
    first = fetch(url, sha256=SHA256)
    store.pipe("/bucket/model.pth", b"newer")
    second = fetch(url)
    assert (first.read_bytes(), second.read_bytes()) == (CONTENT, b"newer")
    with pytest.raises(UnknownModelError, match="folder"):
        fetch("memory://bucket")
    elsewhere = fetch(url, cache_dir=tmp_path / "elsewhere")
    assert elsewhere.is_relative_to(tmp_path / "elsewhere")
    store.rm("/bucket", recursive=True)


def test_concurrent_fetches_agree(cache, server) -> None:
    base, _ = server
    found: list[Path] = []
    threads = [
        threading.Thread(target=lambda: found.append(fetch(f"{base}/model.safetensors"))) for _ in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1
    assert whole_files(cache) == [found[0]]
    assert found[0].read_bytes() == CONTENT


def test_local_paths_and_errors(cache, tmp_path, monkeypatch) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(CONTENT)
    assert fetch(str(path), sha256=SHA256) == path
    with pytest.raises(ChecksumError):
        fetch(str(path), sha256="2" * 64)
    with pytest.raises(UnknownModelError, match="no such file"):
        fetch(str(tmp_path / "absent"))
    with pytest.raises(UnknownModelError, match="hf://"):
        fetch("nosuch://bucket/x")

    def missing(url: str, **options: object) -> None:
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr(fsspec.core, "url_to_fs", missing)
    for protocol, extra in [("s3", "s3"), ("gs", "gcs"), ("hf", "hub")]:
        with pytest.raises(CheckpointError, match=rf"sspsam\[{extra}\]"):
            fetch(f"{protocol}://bucket/x.pth")
    monkeypatch.delenv("SSPSAM_CACHE")
    assert cache_folder() == Path.home() / ".cache" / "sspsam"
