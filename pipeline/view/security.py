"""Access control: token, Host and Origin checks, and security headers.

- A page of another site can make a browser send requests here. Its name pointed at this address
  (DNS rebinding) shows in Host: only addresses, localhost, this machine's name and names given by
  --allowed-host are answered. Its POSTs show in Origin: that must be this server.
- Where others can reach the port, each request brings the token: as cookie (set once by
  /?token=...), or as `Authorization: Bearer`.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import socket
from urllib.parse import parse_qs, urlencode, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from pipeline.view.view_config import ViewConfig, is_loopback

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}

_LOGIN_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Token needed - SSP-SAM view</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="stylesheet" href="/static/app.css"></head>
<body class="login"><main><h1>Token needed</h1>
<p>The terminal where <code>sspsam view</code> runs shows the token.</p>
<form method="get" action="/"><label for="token">Token</label>
<input id="token" name="token" type="password" autocomplete="off" autofocus required>
<button>Open</button></form></main></body></html>"""


class Guard:
    """ASGI middleware that refuses requests which fail a check, and adds HEADERS to every response."""

    def __init__(self, app: ASGIApp, config: ViewConfig) -> None:
        self._app = app
        self._config = config
        self._names = {"localhost", *map(str.lower, config.allowed_hosts)}
        if not is_loopback(config.host):
            self._names |= {config.host.lower(), socket.gethostname().lower()}
        secret = (config.token or "").encode()
        # The cookie must not give the token away to whoever reads it from a disk.
        self._cookie_value = hashlib.sha256(b"sspsam view" + secret).hexdigest()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        refusal = self._refusal(Request(scope))
        await (refusal or self._app)(scope, receive, send_guarded)

    def _refusal(self, request: Request) -> Response | None:
        host = request.headers.get("host", "")
        if not self._known_host(host):
            message = f"Host {host!r} is not this server: start with --allowed-host to permit it"
            return JSONResponse({"error": message}, 421)
        if request.method not in ("GET", "HEAD") and not _same_origin(request.headers):
            return JSONResponse({"error": "this request comes from another site"}, 403)
        if self._config.token is None or request.url.path.startswith("/static/"):
            return None
        return self._ask_for_token(request)

    def _known_host(self, host: str) -> bool:
        try:
            name = (urlsplit(f"//{host}").hostname or "").lower()
        except ValueError:
            return False
        if name in self._names:
            return True
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return False
        # An address cannot be rebound; on loopback only loopback addresses make sense.
        return address.is_loopback or not is_loopback(self._config.host)

    def _ask_for_token(self, request: Request) -> Response | None:
        # A cookie counts for all ports of a host: the name tells viewers apart.
        cookie = f"sspsam_view_{request.url.port or 80}"
        if hmac.compare_digest(request.cookies.get(cookie, "").encode(), self._cookie_value.encode()):
            return None
        scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self._is_token(bearer):
            return None
        parameters = parse_qs(request.url.query)
        if request.url.path == "/" and self._is_token(parameters.pop("token", [""])[0]):
            query = urlencode(parameters, doseq=True)
            response = RedirectResponse(f"/?{query}" if query else "/", 303)
            response.set_cookie(
                cookie,
                self._cookie_value,
                httponly=True,
                samesite="strict",
                secure=request.url.scheme == "https",
            )
            return response
        if request.url.path == "/":
            return HTMLResponse(_LOGIN_PAGE, 401)
        return JSONResponse({"error": "token needed: open / with it first"}, 401)

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.strip().encode(), str(self._config.token).encode())


def _same_origin(headers: Headers) -> bool:
    """Whether Origin, which every browser sends with a POST, names this server."""
    origin = urlsplit(headers.get("origin", ""))
    return origin.scheme in ("http", "https") and origin.netloc == headers.get("host")
