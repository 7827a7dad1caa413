"""Files of any fsspec file system: opening them, and telling transient from permanent errors."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import aiohttp
import fsspec
from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs

from pipeline.sources.samples import Shard
from sspsam.storage.storage_options import options_for

#: Errors of the storage that another attempt cannot mend.
_FINAL = (
    *(FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, FileExistsError),
    aiohttp.InvalidURL,
)
#: What botocore raises where it finds no keys.
_NO_CREDENTIALS = frozenset({"NoCredentialsError", "PartialCredentialsError", "ProfileNotFound"})
#: HTTP statuses that say "later" although they blame the client.
_LATER = (408, 425, 429)
_BLOCK_BYTES = 8 * 2**20
_BUFFER_BYTES = 2**18


class ShardError(Exception):
    """A shard or sample cannot be used, and another attempt will not help.

    Args:
        kind: what stands in the row's `error.kind`.
        message: what stands in the row's `error.message`.
        key: of the sample that the fault cut short, if there is one.
    """

    def __init__(self, kind: str, message: str, key: str | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.key = key


def is_transient(error: BaseException) -> bool:
    """Whether the same request may succeed later: timeouts, broken connections, 5xx and 429.

    Permanent: missing files (404), refused access (401, 403), and any error that is not the storage's.
    """
    status = http_status(error)
    if status is not None:
        return status >= 500 or status in _LATER
    if isinstance(error, FileNotFoundError) and isinstance(error.__cause__, Exception):
        return is_transient(error.__cause__)  # fsspec's HTTP takes every fault for a missing file
    if isinstance(error, (ShardError, *_FINAL)):
        return False
    if isinstance(error, (OSError, TimeoutError, aiohttp.ClientError, EOFError)):
        return True
    # botocore's, urllib3's, gcsfs's and huggingface_hub's faults are known by name alone, because
    # their packages are optional here.
    names = {base.__name__ for base in type(error).__mro__}
    if names & _NO_CREDENTIALS:
        return False
    modules = {base.__module__.partition(".")[0] for base in type(error).__mro__}
    return bool(
        modules & {"botocore", "aiobotocore", "urllib3", "httpx", "httpcore", "gcsfs"}
        or names & {"TimeoutError", "IncompleteReadError", "FSTimeoutError", "HttpError"}
    )


def http_status(error: BaseException) -> int | None:
    """The HTTP status of aiohttp's, urllib's and botocore's errors, if it says failure."""
    status = getattr(error, "status", None) or getattr(error, "code", None)
    response = getattr(error, "response", None)
    if isinstance(response, Mapping):
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return status if isinstance(status, int) and status >= 400 else None


def describe(error: BaseException) -> str:
    """One line for a person: the type, and the message cut to a length that suits a row."""
    text = " ".join(str(error).split()) or "no message"
    return f"{type(error).__name__}: {text[:300]}"


def mend_for(error: BaseException) -> str:
    """The remedy for a storage error, to be put after its description; often empty."""
    if is_transient(error):
        return "; the storage may be back later"
    names = {base.__name__ for base in type(error).__mro__}
    if names & _NO_CREDENTIALS:
        return (
            "; give AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile, or "
            """--storage-options '{"anon": true}' for a public bucket"""
        )
    if http_status(error) in (401, 403) or isinstance(error, PermissionError):
        return "; check the credentials and what they may do"
    return ""


def filesystem(url: str, storage_options: Mapping[str, Any] | None) -> tuple[AbstractFileSystem, str]:
    """The filesystem of a URL, and the URL's path on it. Options that it does not know are left out."""
    options = options_for(url, storage_options)
    if fsspec.utils.get_protocol(url) in ("http", "https"):
        # aiohttp ends a request after 5 minutes by default, which a large shard may well take.
        client = dict(options.get("client_kwargs") or {})
        client.setdefault("timeout", aiohttp.ClientTimeout(None, sock_connect=30, sock_read=60))
        options["client_kwargs"] = client
    fs, path = url_to_fs(url, **options)
    return fs, path


def is_local(fs: AbstractFileSystem) -> bool:
    protocols = (fs.protocol,) if isinstance(fs.protocol, str) else fs.protocol
    return "file" in protocols


def full_url(fs: AbstractFileSystem, path: str) -> str:
    """The URL under which any process finds `path`; a plain path for local files."""
    return path if is_local(fs) else str(fs.unstrip_protocol(path))


def etag_of(info: Mapping[str, Any]) -> str | None:
    """The tag that changes when the file does; its modification time where there is no tag."""
    for name in ("ETag", "etag", "md5Hash", "content_md5", "blob_id", "checksum"):
        if info.get(name):
            return str(info[name]).strip('"')
    modified = info.get("mtime")
    return f"mtime-{modified:.6f}" if isinstance(modified, (int, float)) else None


def open_shard(
    shard: Shard, storage_options: Mapping[str, Any] | None
) -> tuple[io.BufferedReader[Any], int | None]:
    """Open for reading from byte 0.

    Returns:
        The open file, whose `read(n)` returns fewer than n bytes only at the end, and the length in
        bytes if it is known.

    Raises:
        ShardError: the file is not the one that was listed.
    """
    fs, path = filesystem(shard.url, storage_options)
    length: int | None
    if is_local(fs):
        raw: Any = io.FileIO(path)
        length = raw.seek(0, io.SEEK_END) + 0 * raw.seek(0)
    else:
        fs.invalidate_cache(fs._parent(path))
        raw = fs.open(path, "rb", block_size=_BLOCK_BYTES, cache_type="readahead")
        size = getattr(raw, "size", None)
        length = size if isinstance(size, int) else None
    etag = etag_of(getattr(raw, "details", None) or {})
    same_tag = etag is None or shard.etag is None or etag == shard.etag
    if (shard.size is not None and length not in (None, shard.size)) or not same_tag:
        raw.close()
        raise ShardError(
            "unreadable_shard",
            f"changed since it was listed ({shard.size} bytes, now {length}): list the input again",
        )
    return io.BufferedReader(raw, _BUFFER_BYTES), length
