"""From what the user points at to shards: URL, glob, folder, or text file of URLs."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

from pipeline.sources.records import FORMATS, IMAGE_EXTENSIONS, Shard
from pipeline.sources.storage import (
    describe,
    etag_of,
    filesystem,
    full_url,
    is_local,
    is_transient,
)
from sspsam.errors import ConfigError, DataError

#: File name endings of each format of shard.
_ENDINGS = {"tar": (".tar", ".tar.gz", ".tgz"), "parquet": (".parquet", ".parq", ".pq")}
_LIST_ENDINGS = (".txt", ".lst", ".list", ".urls")
_MAX_NAME = 120

#: (URL, what the filesystem says about it)
Entry = tuple[str, Mapping[str, Any]]


def list_shards(
    input: str | Sequence[str],
    *,
    format: str | None = None,
    captions: str | None = None,
    image_column: str | None = None,
    caption_column: str | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> list[Shard]:
    """The shards of an input, sorted by name.

    Args:
        input: a shard's URL, a glob, a URL with braces ({00000..00099}), a folder of shards or of
            images, a text file with one of these a line, or a list of them. URLs are fsspec's;
            without a protocol they are local paths.
        format: tar, parquet or folder; None looks at the names.
        captions: captions file of a folder of images; None finds it in the folder.
        image_column, caption_column: of Parquet; None finds them.

    Raises:
        ConfigError: nothing is there, or it is not clear what; the message names the flag.
        DataError: the storage cannot be read.
    """
    if format is not None and format not in FORMATS:
        raise ConfigError(f"--format {format!r} is none of {', '.join(FORMATS)}")
    inputs = [input] if isinstance(input, str) else list(input)
    if not inputs:
        raise ConfigError("INPUT is an empty list of URLs")
    try:
        inputs = [url for item in inputs for url in _lines(item, storage_options)]
        entries = [e for url in inputs for e in _expand(url, format, storage_options)]
    except (ConfigError, DataError):
        raise
    except Exception as error:
        later = "; the storage may be back later" if is_transient(error) else ""
        raise DataError(f"INPUT cannot be listed: {describe(error)}{later}") from error
    shards = _named(entries, inputs, format)
    return sorted(shards, key=lambda shard: shard.name)


def _lines(url: str, storage_options: Mapping[str, Any] | None) -> list[str]:
    """The URLs in a text file of URLs, those without a protocol relative to it; else the URL."""
    if not url.lower().endswith(_LIST_ENDINGS):
        return [url]
    fs, path = filesystem(url, storage_options)
    if not fs.exists(path):
        raise ConfigError(f"INPUT {url}: no such file")
    lines = (line.strip() for line in fs.cat_file(path).decode("utf-8-sig").splitlines())
    found = [line for line in lines if line and not line.startswith("#")]
    if not found:
        raise ConfigError(f"INPUT {url}: no URL in the file; write one a line")
    folder = full_url(fs, fs._parent(path)).rstrip("/")
    return [line if "://" in line or line.startswith(("/", "~")) else f"{folder}/{line}" for line in found]


def _expand(url: str, format: str | None, options: Mapping[str, Any] | None) -> list[Entry]:
    """The files that one URL stands for, sorted by URL."""
    braced = _braces(url)
    fs, _ = filesystem(braced[0], options)
    fs.invalidate_cache()
    if len(braced) > 1:
        paths = [fs._strip_protocol(item) for item in braced]
        found = {path: fs.info(path) for path in paths}
    else:
        path = fs._strip_protocol(url)
        if any(c in path for c in "*?[") and not fs.exists(path):
            found = {p: i for p, i in fs.glob(path, detail=True).items() if i["type"] == "file"}
            found = {p: i for p, i in found.items() if _ending(p) in ("tar", "parquet")} or found
        else:
            try:
                info = fs.info(path)
            except FileNotFoundError:
                raise ConfigError(f"INPUT {url}: nothing there; check the path") from None
            if info["type"] != "directory":
                found = {path: info}
            else:
                found = _shards_below(url, fs.find(path, detail=True), format)
    if not found:
        raise ConfigError(f"INPUT {url}: no file matches")
    return [(full_url(fs, path), found[path]) for path in sorted(found)]


def _shards_below(url: str, found: Mapping[str, Any], format: str | None) -> dict[str, Mapping[str, Any]]:
    """The shards in a folder. Parquet beside tars of the same names is img2dataset's metadata."""
    by_format = {kind: {p: i for p, i in found.items() if _ending(p) == kind} for kind in ("tar", "parquet")}
    if format is not None:
        chosen = by_format.get(format, {})
        if not chosen:
            raise ConfigError(f"INPUT {url}: no {format} file in the folder")
        return chosen
    tars, parquets = by_format["tar"], by_format["parquet"]
    if tars:
        strangers = {_stem(p) for p in parquets} - {_stem(p) for p in tars}
        if strangers:
            raise ConfigError(
                f"INPUT {url}: both tar and Parquet files; say which with --format, or give a glob"
            )
        return tars
    if parquets:
        return parquets
    images = sum(PurePosixPath(p).suffix.lower() in IMAGE_EXTENSIONS for p in found)
    raise ConfigError(
        f"INPUT {url}: no .tar, .tar.gz or .parquet file in the folder ({len(found)} files, "
        f"{images} of them images)"
    )


def _named(entries: Iterable[Entry], inputs: Sequence[str], format: str | None) -> list[Shard]:
    unique = dict(entries)
    root = _root(inputs) if len(inputs) == 1 else None
    plain = {url: _plain_name(url, root) for url in unique}
    shared = Counter(plain.values())
    shards = []
    for url, info in unique.items():
        kind = format or _ending(url)
        if kind is None:
            raise ConfigError(
                f"INPUT {url}: neither .tar, .tar.gz nor .parquet; say what it is with --format"
            )
        name = plain[url]
        if shared[name] > 1:
            name = f"{name[:_MAX_NAME]}-{_digest(url)}"
        size = info.get("size")
        shards.append(Shard(name, url, kind, size if isinstance(size, int) else None, etag_of(info)))
    return shards


def _plain_name(url: str, root: str | None) -> str:
    """The path below the input's folder, made safe; a hash follows where that lost something."""
    path = _path(url)
    if root is not None and path.startswith(root):
        path = path[len(root) :]
    else:
        path = PurePosixPath(path).name
    stem = _stem(path.strip("/"))
    safe = re.sub(r"[^A-Za-z0-9._-]", "_", stem).lstrip("._-")[:_MAX_NAME]
    return safe if safe == stem else f"{safe}-{_digest(stem)}".lstrip("-")


def _root(inputs: Sequence[str]) -> str:
    """The fixed folder of an input: a shard's parent, or what stands before the first wildcard."""
    url = re.split(r"[*?\[{]", inputs[0])[0]
    fs, path = filesystem(url, None) if "://" not in url else (None, url)
    path = _path(path if fs is None or not is_local(fs) else str(path))
    if _ending(path) or (url != inputs[0] and not url.endswith("/")):
        path = path.rpartition("/")[0]
    return path.rstrip("/") + "/"


def _path(url: str) -> str:
    return url.split("://", 1)[-1].split("?", 1)[0]


def _ending(path: str) -> str | None:
    name = _path(path).lower()
    return next((kind for kind, ends in _ENDINGS.items() if name.endswith(ends)), None)


def _stem(path: str) -> str:
    lowered = path.lower()
    endings = sorted(itertools.chain(*_ENDINGS.values()), key=len, reverse=True)
    return next((path[: -len(end)] for end in endings if lowered.endswith(end)), path)


def _digest(text: str) -> str:
    return hashlib.sha1(text.encode()).hexdigest()[:8]


def _braces(url: str) -> list[str]:
    """Braces as the shell expands them: {000..099} and {train,val}; zeros in front are kept."""
    match = re.search(r"\{(?:(\d+)\.\.(\d+)|([^{}]*,[^{}]*))\}", url)
    if not match:
        return [url]
    first, last, words = match.groups()
    if words is not None:
        items = words.split(",")
    else:
        items = [str(n).zfill(len(first)) for n in range(int(first), int(last) + 1)]
    return [whole for item in items for whole in _braces(url[: match.start()] + item + url[match.end() :])]
