"""An HTTP proxy in front of a store that misbehaves on purpose: `with proxy(endpoint) as store:`.

`store.begin(Trouble(...))` says what becomes of requests; `store.begin(None)` passes everything on as it is.
"""

from __future__ import annotations

import contextlib
import http.client
import random
import re
import socket
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.utils import formatdate, parsedate_to_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

_CODES = {500: "InternalError", 503: "ServiceUnavailable", 507: "InsufficientStorage", 403: "AccessDenied"}


@dataclass
class Trouble:
    """What goes wrong, with which share of the requests, from which chunk on, for how long.

    kinds: statuses to answer with (503 also as SlowDown), or of
        "away"   the connection is closed without an answer
        "slow"   the answer comes `delay` seconds later
        "cut"    half of the body, then the connection is closed
        "short"  a byte less than Content-Length says, then the connection is closed
        "reset"  half of the body, then the connection is reset
        "wrong"  64 bytes of the body inverted, the length as it was
        "clock"  every time that the store tells is `delay` seconds later
    after: chunk files that are written before it begins.
    times: requests that it befalls at most.
    otherwise: what becomes of the requests that this trouble does not befall.

    The first request that may be befallen always is.
    """

    kinds: tuple[int | str, ...]
    rng: random.Random
    share: float = 1.0
    after: int = 0
    seconds: float = 1e9
    delay: float = 2.0
    methods: tuple[str, ...] = ("GET", "HEAD", "PUT", "POST", "DELETE")
    path: str = ""  # what the path holds
    times: int = 10**9
    otherwise: Trouble | None = None
    begun: float | None = None
    hits: int = 0

    def of(self, method: str, path: str, chunks: int) -> int | str | None:
        now = time.monotonic()
        if self.begun is None and chunks >= self.after:
            self.begun = now
        if self.begun is None or now > self.begun + self.seconds or self.hits >= self.times:
            return None
        if method not in self.methods or self.path not in path:
            return None
        if self.hits and self.rng.random() >= self.share:
            return None
        self.hits += 1
        return self.rng.choice(self.kinds)


@dataclass
class Proxy:
    """`chunks`: the chunk files written through it since `begin`."""

    endpoint: str
    trouble: Trouble | None = None
    chunks: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(self, trouble: Trouble | None) -> None:
        with self.lock:
            self.trouble, self.chunks = trouble, 0

    def choose(self, method: str, path: str) -> tuple[int | str | None, Trouble | None]:
        with self.lock:
            self.chunks += method == "PUT" and "/_chunks/" in path
            trouble = self.trouble
            while trouble:
                if kind := trouble.of(method, path, self.chunks):
                    return kind, trouble
                trouble = trouble.otherwise
            return None, None


@contextlib.contextmanager
def proxy(endpoint: str) -> Iterator[Proxy]:
    """Stand before `endpoint` on a port of this machine until the block ends."""
    upstream = urlsplit(endpoint).netloc

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: object) -> None:
            pass

        def pass_on(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            kind, trouble = here.choose(self.command, self.path)
            if kind == "away":
                self.close_connection = True
            elif isinstance(kind, int):
                self.refuse(kind)
            else:
                delay = trouble.delay if trouble else 0.0
                time.sleep(delay if kind == "slow" else 0.0)
                self.answer(body, kind, delay)

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = pass_on  # noqa: N815

        def refuse(self, status: int) -> None:
            code = "SlowDown" if status == 503 and len(self.path) % 2 else _CODES[status]
            data = f"<Error><Code>{code}</Code><Message>on purpose</Message></Error>".encode()
            self.send_response_only(status)
            self.send_header("Content-Type", "application/xml")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        def answer(self, body: bytes, kind: str | None, delay: float) -> None:
            response, data = self.ask(body)
            headers = {name.lower(): value for name, value in response.headers.items()}
            if kind == "clock":
                if "last-modified" in headers:
                    headers["last-modified"] = _later(headers["last-modified"], delay)
                data = re.sub(rb"(?<=<LastModified>)[^<]+", lambda found: _later_iso(found[0], delay), data)
            length = headers.pop("content-length", str(len(data)))
            self.send_response_only(response.status)
            for name, value in headers.items():
                if name not in ("connection", "transfer-encoding"):
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)) if kind == "clock" and data else length)
            self.end_headers()
            if self.command == "HEAD" or not data:
                return
            if kind == "wrong":
                at = len(data) // 3
                data = data[:at] + bytes(byte ^ 0xFF for byte in data[at : at + 64]) + data[at + 64 :]
            if kind in ("cut", "reset", "short"):
                data = data[:-1] if kind == "short" else data[: len(data) // 2]
                self.close_connection = True
            self.wfile.write(data)
            if kind == "reset":
                self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                self.connection.close()

        def ask(self, body: bytes) -> tuple[http.client.HTTPResponse, bytes]:
            with contextlib.closing(http.client.HTTPConnection(upstream, timeout=60)) as connection:
                connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
                for name, value in self.headers.items():
                    if name.lower() not in ("connection", "expect"):
                        connection.putheader(name, value)
                connection.endheaders(body)
                response = connection.getresponse()
                return response, response.read()

        def handle(self) -> None:
            with contextlib.suppress(OSError, ValueError, http.client.HTTPException):
                super().handle()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    here = Proxy(f"http://127.0.0.1:{server.server_port}")
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield here
    finally:
        server.shutdown()
        server.server_close()


def _later(date: str, seconds: float) -> str:
    return formatdate(parsedate_to_datetime(date).timestamp() + seconds, usegmt=True)


def _later_iso(date: bytes, seconds: float) -> bytes:
    import datetime as dt

    then = dt.datetime.fromisoformat(date.decode().replace("Z", "+00:00")) + dt.timedelta(seconds=seconds)
    return then.isoformat(timespec="milliseconds").replace("+00:00", "Z").encode()
