"""INPUT (URL, glob, folder, or text file of URLs) as a list of shards."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from fsspec import AbstractFileSystem
from tenacity import Retrying, retry_if_exception, stop_after_attempt, wait_chain, wait_fixed

from pipeline.sources.folder import folder_shards
from pipeline.sources.parquet import check_columns
from pipeline.sources.samples import FORMATS, IMAGE_EXTENSIONS, ReadOptions, Shard
from pipeline.sources.storage import (
    ShardError,
    describe,
    etag_of,
    filesystem,
    full_url,
    is_transient,
    mend_for,
)
from sspsam.errors import ConfigError, DataError
from sspsam.storage.local_copies import EXTRAS
from sspsam.storage.secrets import redact

#: File name endings of each format of shard.
_ENDINGS = {"tar": (".tar", ".tar.gz", ".tgz"), "parquet": (".parquet", ".parq", ".pq")}
_LIST_ENDINGS = (".txt", ".lst", ".list", ".urls")
#: What says that a folder is an annotation dataset (`pipeline.annotate.manifest`).
_MANIFEST = "_run.json"
_MAX_NAME = 120
_LISTING_THREADS = 32
_PAUSES_SECONDS = (0.5, 1.0, 2.0)


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
    files: dict[str, tuple[str, Mapping[str, Any]]] = {}  # URL -> label, what the storage says
    shards: list[Shard] = []
    try:
        inputs = [url for item in inputs for url in _lines(item, storage_options)]
        with ThreadPoolExecutor(_LISTING_THREADS) as pool:
            expanded = list(pool.map(lambda url: _expand_with_retry(url, storage_options), inputs))
        for url, found in zip(inputs, expanded, strict=True):
            if found.folder and (format == "folder" or not any(map(format_of, found.files))):
                name = _safe(PurePosixPath(_path(found.folder)).name)
                name = f"{name}-{_digest(found.folder)}" if len(inputs) > 1 else name
                shards += folder_shards(found.folder, name, found.files, captions, storage_options)
            else:
                chosen = _choose(url, found.files, format) if found.folder else found.files
                for path, info in chosen.items():
                    inside = len(inputs) == 1 and path.startswith(found.root + "/")
                    label = path[len(found.root) :] if inside else PurePosixPath(_path(path)).name
                    files[full_url(found.fs, path)] = (redact(label), info)  # names of files are made of it
        shards += _named(files, format)
        _check_columns(shards, image_column, caption_column, storage_options)
    except (ConfigError, DataError):
        raise
    except Exception as error:
        shown = input if isinstance(input, str) else ", ".join(inputs[:3])
        raise DataError(f"INPUT {shown} cannot be listed: {describe(error)}{mend_for(error)}") from error
    return sorted(shards, key=lambda shard: shard.name)


def input_root(input: str, storage_options: Mapping[str, Any] | None) -> str | None:
    """The folder below which an input's files lie: INPUT, or what stands above its pattern or file.

    None for a text file of URLs, which may lie anywhere.
    """
    if input.lower().endswith(_LIST_ENDINGS):
        return None
    fixed = re.split(r"[*?\[{]", input, maxsplit=1)[0]
    fs, path = _filesystem(fixed, storage_options)
    above = fixed != input or format_of(fixed) is not None
    return full_url(fs, path.rpartition("/")[0] if above else path.rstrip("/"))


def _lines(url: str, storage_options: Mapping[str, Any] | None) -> list[str]:
    """The URLs in a text file of URLs, those without a protocol relative to it; else the URL."""
    if not url.lower().endswith(_LIST_ENDINGS):
        return [url]
    fs, path = _filesystem(url, storage_options)
    if not fs.exists(path):
        raise ConfigError(f"INPUT {url}: no such file")
    lines = (line.strip() for line in fs.cat_file(path).decode("utf-8-sig").splitlines())
    found = [line for line in lines if line and not line.startswith("#")]
    if not found:
        raise ConfigError(f"INPUT {url}: no URL in the file; write one a line")
    folder = full_url(fs, fs._parent(path)).rstrip("/")
    return [line if "://" in line or line.startswith(("/", "~")) else f"{folder}/{line}" for line in found]


@dataclass(frozen=True)
class _Found:
    """Files that one URL stands for, by path, and the path above them that the URL fixes.

    `folder` is the URL, in full, if it is a folder's.
    """

    fs: AbstractFileSystem
    files: dict[str, Mapping[str, Any]]
    root: str
    folder: str | None = None


def _expand_with_retry(url: str, options: Mapping[str, Any] | None) -> _Found:
    patience = Retrying(
        retry=retry_if_exception(is_transient),
        stop=stop_after_attempt(len(_PAUSES_SECONDS) + 1),
        wait=wait_chain(*map(wait_fixed, _PAUSES_SECONDS)),
        reraise=True,
    )
    return patience(_expand, url, options)


def _expand(url: str, options: Mapping[str, Any] | None) -> _Found:
    braced = _braces(url)
    fs, path = _filesystem(braced[0], options)
    fs.invalidate_cache()
    if len(braced) > 1:
        paths = [fs._strip_protocol(item) for item in braced]
        root = fs._strip_protocol(url.partition("{")[0] + "x").rpartition("/")[0]
        return _Found(fs, {path: _info(fs, path) for path in paths}, root)
    if any(c in path for c in "*?[") and not fs.exists(path):
        files = {p: i for p, i in fs.glob(path, detail=True).items() if i["type"] == "file"}
        files = {p: i for p, i in files.items() if format_of(p)} or files
        if not files:
            raise ConfigError(f"INPUT {url}: no file matches")
        return _Found(fs, files, re.split(r"[*?\[]", path)[0].rpartition("/")[0])
    info = _info(fs, path)
    if info["type"] != "directory":
        return _Found(fs, {path: info}, path.rpartition("/")[0])
    files = {p: i for p, i in fs.find(path, detail=True).items() if not _is_hidden(p, path)}
    files = _without_datasets(files, path.rstrip("/"))
    if not files:
        raise ConfigError(f"INPUT {url}: the folder is empty")
    return _Found(fs, files, path.rstrip("/"), full_url(fs, path))


def _filesystem(url: str, options: Mapping[str, Any] | None) -> tuple[AbstractFileSystem, str]:
    try:
        return filesystem(url, options)
    except ImportError as error:
        protocol = url.partition("://")[0]
        extra = f": pip install 'sspsam[{EXTRAS[protocol]}]'" if protocol in EXTRAS else ""
        raise ConfigError(f"INPUT {url}: {protocol}:// needs another package{extra} ({error})") from error
    except ValueError as error:
        raise ConfigError(
            f"INPUT {url}: {error}; give a local path, s3://, gs://, hf://, https:// or another URL "
            "that fsspec knows, and --storage-options that its file system takes"
        ) from error


def _info(fs: AbstractFileSystem, path: str) -> Mapping[str, Any]:
    try:
        return dict(fs.info(path))
    except FileNotFoundError as error:
        if is_transient(error):
            raise
        raise ConfigError(f"INPUT {full_url(fs, path)}: nothing there; check the path") from None


def _without_datasets(files: Mapping[str, Mapping[str, Any]], folder: str) -> dict[str, Mapping[str, Any]]:
    """The files but for those of annotation datasets below `folder`.

    People put OUTPUT into the folder of their images. When the run is resumed, its files are there too:
    they are no input, and Parquet among images would be taken for the shards.
    """
    made = {path.rpartition("/")[0] for path in files if path.endswith(f"/{_MANIFEST}")} - {folder}
    below = tuple(f"{dataset}/" for dataset in made)
    return {path: info for path, info in files.items() if not path.startswith(below)}


def _is_hidden(path: str, folder: str) -> bool:
    parts = PurePosixPath(path[len(folder) :]).parts
    return any(part.startswith(".") or part == "__MACOSX" for part in parts)


def _choose(
    url: str, files: Mapping[str, Mapping[str, Any]], format: str | None
) -> dict[str, Mapping[str, Any]]:
    """The shards in a folder: tars and Parquet files, each read as what it is.

    Parquet beside a tar of the same name is img2dataset's metadata, not a shard.
    """
    tars = {p: i for p, i in files.items() if format_of(p) == "tar"}
    parquets = {p: i for p, i in files.items() if format_of(p) == "parquet"}
    if format is not None:
        chosen = tars if format == "tar" else parquets
        if not chosen:
            raise ConfigError(f"INPUT {url}: no {format} file in the folder")
        return chosen
    stems = {_stem(p) for p in tars}
    return tars | {p: i for p, i in parquets.items() if _stem(p) not in stems}


def _check_columns(
    shards: Sequence[Shard],
    image_column: str | None,
    caption_column: str | None,
    storage_options: Mapping[str, Any] | None,
) -> None:
    """Whether the first Parquet shard has the columns; what cannot be read is for the reader."""
    for shard in shards:
        if shard.format == "parquet":
            options = ReadOptions(image_column, caption_column, storage_options=storage_options)
            try:
                check_columns(shard, options)
            except ShardError as error:
                if error.kind == "missing_column":
                    raise ConfigError(f"INPUT {shard.url}: {error}") from error
            return


def _named(files: Mapping[str, tuple[str, Mapping[str, Any]]], format: str | None) -> list[Shard]:
    plain = {url: _safe(_stem(label.strip("/"))) for url, (label, _) in files.items()}
    shared = Counter(plain.values())
    shards = []
    for url, (_, info) in files.items():
        kind = format if format in ("tar", "parquet") else format_of(url)
        if kind is None:
            is_image = PurePosixPath(_path(url)).suffix.lower() in IMAGE_EXTENSIONS
            mend = "name its folder, or use sspsam segment" if is_image else "say what it is with --format"
            raise ConfigError(f"INPUT {url}: neither .tar, .tar.gz nor .parquet; {mend}")
        name = plain[url] if shared[plain[url]] == 1 else f"{plain[url]}-{_digest(url)}"
        size = info.get("size")
        shards.append(Shard(name, url, kind, size if isinstance(size, int) else None, etag_of(info)))
    return shards


def _safe(path: str) -> str:
    """A path as one name of a folder; a hash follows where making it safe lost something."""
    safe = re.sub(r"[^A-Za-z0-9._-]", "_", path.strip("/")).lstrip("._-")[:_MAX_NAME]
    return safe if safe == path else f"{safe}-{_digest(path)}".lstrip("-")


def _path(url: str) -> str:
    return url.split("://", 1)[-1].split("?", 1)[0]


def format_of(path: str) -> str | None:
    """The format that a shard's name says it has; None if it does not look like a shard."""
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
