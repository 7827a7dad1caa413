"""A local HTTP server that fails on demand: the faults of real storage, without one."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote


@dataclass
class Server:
    """`files` by path. `faults` are used up, one a GET: a status (400 to 599), or bytes until it hangs up."""

    url: str
    files: dict[str, bytes] = field(default_factory=dict)
    faults: list[int] = field(default_factory=list)
    ranges: bool = True
    requests: list[tuple[str, str | None]] = field(default_factory=list)

    def take_fault(self) -> int | None:
        return self.faults.pop(0) if self.faults else None


@contextlib.contextmanager
def serve(files: dict[str, bytes], *, ranges: bool = True) -> Iterator[Server]:
    """Serve files on a port of this machine until the context ends."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def _answer(self, body: bool) -> None:
            path = unquote(self.path).lstrip("/")
            asked = self.headers.get("Range") if server.ranges else None
            if body:
                server.requests.append((path, asked))
            fault = server.take_fault() if body else None
            data = server.files.get(path)
            status = 404 if data is None else 200
            if fault is not None and 400 <= fault < 600:
                status, data = fault, b"out of order"
            data = data if data is not None else b"not here"
            total = len(data)
            first = 0
            if asked and status == 200:
                first, last = asked.removeprefix("bytes=").split("-")
                first, last = int(first), min(int(last or total), total - 1)
                status = 206 if first < total else 416
                data = data[first : last + 1]
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.send_header("Connection", "close")
            if server.ranges:
                self.send_header("Accept-Ranges", "bytes")
            if status == 206:
                self.send_header("Content-Range", f"bytes {first}-{first + len(data) - 1}/{total}")
            self.end_headers()
            if not body:
                return
            if fault is not None and not 400 <= fault < 600:
                data = data[:fault]
            self.wfile.write(data)

    httpd = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server = Server(f"http://127.0.0.1:{httpd.server_port}", files, ranges=ranges)
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        httpd.shutdown()
        httpd.server_close()
        thread.join()
