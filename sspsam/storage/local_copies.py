"""Remote files as local paths: cached, whole or absent, and verified.

A file lies at `CACHE/<hash of URL>/<hash of version>/<name>`, where the version is what the store says
about the object (etag, size, date). It is downloaded under another name and renamed, so that what is
there is whole; an object that changes gets another folder. The cache is `$SSPSAM_CACHE`, by default
`~/.cache/sspsam`; anything in it may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import logging
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import fsspec
from fsspec.callbacks import TqdmCallback
from tenacity import retry, retry_if_exception_type, stop_after_attempt, wait_exponential

from sspsam.errors import CheckpointError, ChecksumError, SSPSAMError, UnknownModelError
from sspsam.storage.downloads import DownloadBar, announce

logger = logging.getLogger(__name__)
T = TypeVar("T")

#: Protocol -> the extra of this package that brings what reads it.
EXTRAS = {
    "s3": "s3",
    "s3a": "s3",
    "gs": "gcs",
    "gcs": "gcs",
    "hf": "hub",
}
_ATTEMPTS = 4
_FIRST_PAUSE_S = 0.5
# What stores say about one version of an object: S3, GCS, Hugging Face, HTTP, memory.
_VERSION_KEYS = (
    *("ETag", "etag", "LastModified", "md5Hash", "generation", "blob_id", "xet_hash"),
    *("Last-Modified", "Content-MD5", "Digest", "mtime", "created"),
)


def cache_folder() -> Path:
    """Where fetched files are kept."""
    return Path(os.environ.get("SSPSAM_CACHE") or Path.home() / ".cache" / "sspsam")


def fetch(
    url: str,
    *,
    sha256: str | None = None,
    cache_dir: Path | None = None,
    storage_options: dict[str, Any] | None = None,
) -> Path:
    """One remote file as a local path, downloaded at most once a version.

    Args:
        url: any fsspec URL (`hf://org/repo/path`, `s3://`, `gs://`, `https://`, ...) or a local path,
            which is returned as it is.
        sha256: hex digest that the file must have. With it, a cached file needs no network at all.
        cache_dir: instead of `cache_folder()`.
        storage_options: for the file system, such as `{"anon": True}`.

    Raises:
        UnknownModelError: no such file, or no such protocol.
        ChecksumError: the file has another sha256; nothing stays in the cache.
        CheckpointError: the store cannot be reached or refuses, or a package for it is missing; the
            message names the extra to install.
    """
    if "://" not in url:
        path = Path(url)
        if not path.is_file():
            raise UnknownModelError(f"{url}: no such file")
        if sha256 is not None:
            verify_sha256(path, sha256)
        return path
    home = (cache_dir or cache_folder()) / _digest(url)
    name = url.rstrip("/").rsplit("/", 1)[-1].split("?")[0] or "file"
    if sha256 is not None:
        for path in _cached(home, name):
            if file_sha256(path) == sha256.lower():
                return path
    try:
        filesystem, remote = _filesystem(url, storage_options)
        information = with_retries(url, lambda: filesystem.info(remote))
    except UnreachableError as error:
        cached = _cached(home, name)
        if cached and sha256 is None:
            logger.warning("%s cannot be reached (%s): using the cached copy", url, error)
            return cached[0]
        raise CheckpointError(f"{url} cannot be reached: {error}") from error
    if information.get("type") == "directory":
        raise UnknownModelError(f"{url} is a folder; name a file in it")
    target = home / _version(information) / name
    if not target.is_file():
        try:
            _download(filesystem, remote, url, target, information.get("size"), sha256)
        except UnreachableError as error:
            raise CheckpointError(f"{url} could not be downloaded: {error}") from error
    elif sha256 is not None:
        verify_sha256(target, sha256, url)
    return target


def verify_sha256(path: Path, sha256: str, name: str | None = None) -> None:
    """Raise `ChecksumError` unless the file at `path` has this hex digest."""
    found = file_sha256(path)
    if found != sha256.lower():
        raise ChecksumError(
            f"{name or path} has sha256 {found}, not {sha256.lower()}: it is not the file that was "
            "requested, or the digest is that of another version"
        )


def file_sha256(path: Path) -> str:
    """Hex digest of a file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


class UnreachableError(Exception):
    """The store did not answer, after all attempts."""


def _filesystem(url: str, storage_options: dict[str, Any] | None) -> tuple[Any, str]:
    protocol = url.split("://", 1)[0].rsplit("::", 1)[-1]
    try:
        filesystem, remote = fsspec.core.url_to_fs(url, **(storage_options or {}))
    except ImportError as error:
        extra = EXTRAS.get(protocol)
        mend = f"pip install 'sspsam[{extra}]'" if extra else str(error)
        raise CheckpointError(f"{url}: {protocol}:// needs another package: {mend}") from error
    except ValueError as error:
        raise UnknownModelError(
            f"{url}: {error}. Known are hf://, s3://, gs://, https:// and what else fsspec knows"
        ) from error
    return filesystem, remote


def with_retries(url: str, request: Callable[[], T]) -> T:
    """What `request` gives, after a few attempts.

    Raises:
        UnreachableError: no attempt was answered.
        CheckpointError: it was refused; SSPSAMError: what `request` itself makes of an answer.
    """

    @retry(
        retry=retry_if_exception_type(UnreachableError),
        stop=stop_after_attempt(_ATTEMPTS),
        wait=wait_exponential(multiplier=_FIRST_PAUSE_S),
        reraise=True,
    )
    def once() -> T:
        try:
            return request()
        except SSPSAMError:
            raise
        except Exception as error:  # each store has its own exceptions for a lost connection
            cause, status = _cause(error)
            if isinstance(cause, FileNotFoundError) or status in (404, 410):
                raise UnknownModelError(f"{url}: no such file") from error
            if isinstance(cause, PermissionError) or status in (401, 403):
                message = f"{url}: access denied ({cause}); check the credentials"
                raise CheckpointError(message) from error
            if isinstance(cause, ImportError):
                raise CheckpointError(f"{url}: {cause}") from error
            raise UnreachableError(f"{type(cause).__name__}: {cause}") from error

    return once()


def _cause(error: Exception) -> tuple[BaseException, int | None]:
    """What went wrong, and the HTTP status if there was one.

    fsspec's HTTP file system wraps every failure, a refused connection too, in FileNotFoundError.
    """
    cause: BaseException = error
    if isinstance(error, FileNotFoundError) and error.__cause__ is not None:
        cause = error.__cause__
    status = getattr(cause, "status", None)
    return cause, status if isinstance(status, int) else None


def _download(
    filesystem: Any, remote: str, url: str, target: Path, size: int | None, sha256: str | None
) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.parent / f".{target.name}.{uuid.uuid4().hex}.partial"

    def attempt() -> None:
        bar = TqdmCallback(tqdm_cls=DownloadBar, size=size)
        with bar:
            filesystem.get_file(remote, str(partial), callback=bar)
        received = partial.stat().st_size
        if size is not None and received != size:
            raise OSError(f"{received} of {size} bytes received")

    if size:
        announce(url, size, cache_folder())
    try:
        with_retries(url, attempt)
        if sha256 is not None:
            verify_sha256(partial, sha256, url)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def _cached(home: Path, name: str) -> list[Path]:
    """Versions of a file in the cache, newest first."""
    return sorted(home.glob(f"*/{name}"), key=lambda path: -path.stat().st_mtime)


def _version(information: dict[str, Any]) -> str:
    known = [f"{key}={information[key]}" for key in _VERSION_KEYS if information.get(key)]
    return _digest(f"{information.get('size')} {known}")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:20]
