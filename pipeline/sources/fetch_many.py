"""Parallel fetching of many small files: images at URLs and in folders."""

from __future__ import annotations

import http.client
import posixpath
import socket
import ssl
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_exponential, wait_random

from pipeline.sources.samples import ReadOptions
from pipeline.sources.storage import ShardError, describe, filesystem, is_local, is_transient

#: An image URL that fails is tried this often at most: among web images, dead links are normal.
_MAX_ATTEMPTS = 3
_USER_AGENT = "Mozilla/5.0 (compatible; sspsam)"
_READ_BYTES = 2**20
_QUOTE_SAFE = "%/:=&?~#+!$,;'@()*[]"

#: The bytes, or (kind, message).
Fetched = bytes | tuple[str, str]


@contextmanager
def fetcher(options: ReadOptions) -> Iterator[Fetcher]:
    """Fetches with `options.fetch_threads` threads, which end with the context."""
    with ThreadPoolExecutor(options.fetch_threads, thread_name_prefix="fetch") as pool:
        yield Fetcher(pool, options)


class Fetcher:
    def __init__(self, pool: ThreadPoolExecutor, options: ReadOptions) -> None:
        self._pool = pool
        self._options = options

    def fetch(self, urls: Sequence[str | None], missing: str) -> list[Fetched | None]:
        """The bytes behind each URL, in order; None for None.

        A fault is (kind, message): `missing` for a file that is not there, `zero_size` for an empty
        one, `too_large`, and `fetch_failed` for the rest.
        """
        if not any(urls):
            return [None] * len(urls)
        return list(self._pool.map(lambda url: url and self._one(url, missing), urls))  # type: ignore[arg-type]

    def _one(self, url: str, missing: str) -> Fetched:
        first = self._options.backoff_seconds
        attempts = Retrying(
            retry=retry_if_exception(lambda error: not _is_final(error)),
            stop=stop_after_attempt(min(self._options.attempts, _MAX_ATTEMPTS)),
            wait=wait_exponential(multiplier=first) + wait_random(0, first),
            reraise=True,
        )
        try:
            return attempts(_get, url, self._options) or ("zero_size", f"{url}: 0 bytes")
        except ShardError as error:
            return error.kind, str(error)
        except FileNotFoundError:
            return missing, f"{url}: no such file"
        except Exception as error:
            tried = attempts.statistics["attempt_number"]
            return "fetch_failed", f"{url}: {describe(error)} (attempt {tried})"


def resolve(url: str, base: str) -> str:
    """`url` as it is if absolute, else below the folder of the file `base`."""
    if "://" in url or url.startswith("/"):
        return url
    return f"{base.rpartition('/')[0]}/{posixpath.normpath(url)}"


def _get(url: str, options: ReadOptions) -> bytes:
    limit = options.max_image_bytes
    if url.startswith(("http://", "https://")):
        return _get_http(url, options)
    fs, path = filesystem(url, options.storage_options)
    data = Path(path).read_bytes() if is_local(fs) else fs.cat_file(path)
    if len(data) > limit:
        raise ShardError("too_large", f"{url}: {len(data)} bytes; the limit is {limit}")
    return bytes(data)


def _get_http(url: str, options: ReadOptions) -> bytes:
    """One GET, which must bring as many bytes as it announced, in time."""
    limit, seconds = options.max_image_bytes, options.fetch_timeout_seconds
    quoted = urllib.parse.quote(url.strip(), safe=_QUOTE_SAFE)
    request = urllib.request.Request(quoted, headers={"User-Agent": _USER_AGENT})
    deadline = time.monotonic() + seconds
    parts: list[bytes] = []
    count = 0
    with urllib.request.urlopen(request, timeout=seconds) as response:
        while data := response.read(_READ_BYTES):
            parts.append(data)
            count += len(data)
            if count > limit:
                raise ShardError("too_large", f"{url}: more bytes than the limit of {limit}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"not complete after {seconds} s")
        announced = response.headers.get("Content-Length")
    if announced and announced.isdigit() and count < int(announced):
        raise ConnectionError(f"got {count} of {announced} bytes")
    return b"".join(parts)


def _is_final(error: BaseException) -> bool:
    if isinstance(error, (ShardError, FileNotFoundError)):
        return True
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(reason, socket.gaierror):
        return reason.errno == socket.EAI_NONAME
    if isinstance(reason, (ssl.SSLCertVerificationError, http.client.InvalidURL)):
        return True
    if isinstance(reason, http.client.HTTPException):
        return False
    return not is_transient(error)
