"""A local server that answers as the Hugging Face Hub does: `with hub_server() as hub:`.

Model information with sizes, `/resolve/` with the hub's headers, large files by a redirect to another host,
its error codes. Only what huggingface_hub asks for when it lists and downloads models.
"""

from __future__ import annotations

import functools
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

LFS_BYTES = 1000  # the hub keeps larger (binary) files elsewhere


@dataclass
class Hub:
    """Repositories: files by commit, commits by name. `token` opens those in `private` and `gated`."""

    endpoint: str = ""
    commits: dict[str, dict[str, dict[str, bytes]]] = field(default_factory=dict)
    names: dict[str, dict[str, str]] = field(default_factory=dict)
    private: set[str] = field(default_factory=set)
    gated: set[str] = field(default_factory=set)
    token: str = "hf_secret"
    failures: int = 0  # answers of status 500 that are still to be given
    requests: list[str] = field(default_factory=list)
    tokens_elsewhere: list[str] = field(default_factory=list)

    def push(self, repo: str, files: dict[str, bytes], name: str = "main") -> str:
        """A new commit of the whole repository; returns its hash."""
        told = [(path, len(data), _sha256(data)) for path, data in sorted(files.items())]
        commit = hashlib.sha1(repr((repo, told)).encode()).hexdigest()
        self.commits.setdefault(repo, {})[commit] = files
        self.names.setdefault(repo, {})[name] = commit
        return commit


@functools.cache
def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@contextmanager
def hub_server() -> Iterator[Hub]:
    hub = Hub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    http = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.endpoint = f"http://127.0.0.1:{http.server_address[1]}"
    thread = threading.Thread(target=http.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield hub
    finally:
        http.shutdown()
        thread.join()
        http.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:  # noqa: PLR0911
        path = urlsplit(self.path).path.strip("/")
        self.hub.requests.append(f"{self.command} {path}")
        if self.hub.failures:
            self.hub.failures -= 1
            return self.answer(500)
        first, _, rest = path.partition("/")
        if first == "elsewhere":
            if "authorization" in self.headers:
                self.hub.tokens_elsewhere.append(path)
            trees = [files for commits in self.hub.commits.values() for files in commits.values()]
            every = {_sha256(data): data for files in trees for data in files.values()}
            return self.answer(200, every[rest])
        words = [unquote(word) for word in path.removeprefix("api/models/").split("/")]
        repo, rest = "/".join(words[:2]), words[3:]
        allowed = self.headers.get("authorization") == f"Bearer {self.hub.token}"
        if repo not in self.hub.commits or (repo in self.hub.private and not allowed):
            return self.answer(401, code="RepoNotFound")
        if first == "api":
            commit = self.commit(repo, "/".join(rest))
            return self.information(repo, commit) if commit else self.answer(404, code="RevisionNotFound")
        if repo in self.hub.gated and not allowed:
            return self.answer(403, code="GatedRepo")
        name = "/".join(rest[1:])
        commit = self.commit(repo, rest[0])
        if commit is None:
            return self.answer(404, code="RevisionNotFound")
        if name not in self.hub.commits[repo][commit]:
            return self.answer(404, code="EntryNotFound", **{"X-Repo-Commit": commit})
        return self.file(commit, self.hub.commits[repo][commit][name])

    def commit(self, repo: str, revision: str) -> str | None:
        found = self.hub.names[repo].get(revision, revision)
        return found if found in self.hub.commits[repo] else None

    def information(self, repo: str, commit: str) -> None:
        siblings: list[dict[str, Any]] = []
        for name, data in self.hub.commits[repo][commit].items():
            siblings.append({"rfilename": name, "size": len(data), "blobId": _sha256(data)[:40]})
            if len(data) > LFS_BYTES:
                digest = _sha256(data)
                siblings[-1]["lfs"] = {"sha256": digest, "size": len(data), "pointerSize": 134}
        found = {"_id": "0", "id": repo, "modelId": repo, "sha": commit, "private": False, "tags": []}
        self.answer(200, json.dumps(found | {"siblings": siblings}).encode())

    def file(self, commit: str, data: bytes) -> None:
        if len(data) <= LFS_BYTES:
            digest = hashlib.sha1(data).hexdigest()
            return self.answer(200, data, ETag=f'"{digest}"', **{"X-Repo-Commit": commit})
        digest = _sha256(data)
        elsewhere = self.hub.endpoint.replace("127.0.0.1", "localhost")
        headers = {"X-Repo-Commit": commit, "X-Linked-Size": str(len(data)), "X-Linked-Etag": f'"{digest}"'}
        return self.answer(302, Location=f"{elsewhere}/elsewhere/{digest}", **headers)

    def answer(self, status: int, body: bytes = b"", code: str = "", **headers: str) -> None:
        self.send_response(status)
        if code:
            headers["X-Error-Code"] = code
        for name, value in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass
