"""A folder of images with a captions file, as shards of a fixed number of images."""

from __future__ import annotations

import hashlib
import posixpath
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any, Final

from fsspec import AbstractFileSystem

from pipeline.sources.captions_files import ENDINGS, find_captions_file, read_captions
from pipeline.sources.fetch_many import fetcher
from pipeline.sources.samples import (
    IMAGE_EXTENSIONS,
    ReadOptions,
    Sample,
    Shard,
    find_caption,
    image_ref,
)
from pipeline.sources.storage import ShardError, etag_of, filesystem, full_url
from sspsam.errors import ConfigError

#: Images a shard. Changing it changes the names and contents of shards.
IMAGES_PER_SHARD: Final = 4096
_BATCH_IMAGES = 64
#: Value of `--captions` for images without any.
NO_CAPTIONS: Final = "none"


def folder_shards(
    url: str,
    name: str,
    found: Mapping[str, Mapping[str, Any]],
    captions: str | None,
    storage_options: Mapping[str, Any] | None,
) -> list[Shard]:
    """Shards of all images in a folder and its subfolders, sorted by path.

    Images without a caption and captions without an image are samples as well.

    Args:
        url: of the folder.
        name: what the shards' names begin with.
        found: the files in the folder, by path on the filesystem, with what it says about them.
        captions: URL of the captions file, `none`, or None to look for it in the folder.

    Raises:
        ConfigError: there is no captions file, or it cannot be read.
    """
    fs, root = filesystem(url, storage_options)
    below = {path[len(root.rstrip("/")) + 1 :]: info for path, info in found.items()}
    images = [p for p in below if PurePosixPath(p).suffix.lower() in IMAGE_EXTENSIONS]
    captions = _captions_url(fs, root, url, below, captions, storage_options)
    names: dict[str, str] = {}  # path of the image -> its name in the captions file
    if captions is not None:
        basenames = Counter(map(posixpath.basename, images))
        by_basename = {posixpath.basename(p): p for p in images}
        by_stem = {posixpath.splitext(p)[0]: p for p in images}
        known = set(images)
        for entry, _ in read_captions(captions, storage_options):
            path = posixpath.normpath(entry)
            base = posixpath.basename(path)
            if path not in known and basenames[base] == 1:
                path = by_basename[base]
            names.setdefault(by_stem.get(path, path), entry)
    members = sorted({*images, *names})
    shards = []
    for start in range(0, len(members), IMAGES_PER_SHARD):
        part = members[start : start + IMAGES_PER_SHARD]
        digest = hashlib.sha256()
        for path in part:
            info = below.get(path, {})
            digest.update(repr((path, info.get("size"), etag_of(info), names.get(path))).encode())
        shards.append(
            Shard(
                f"{name}-{start // IMAGES_PER_SHARD:05d}",
                full_url(fs, root).rstrip("/"),
                "folder",
                len(part),
                digest.hexdigest()[:32],
                tuple((path, names.get(path)) for path in part),
                captions,
            )
        )
    return shards


def _captions_url(
    fs: AbstractFileSystem,
    root: str,
    url: str,
    below: Mapping[str, Any],
    captions: str | None,
    storage_options: Mapping[str, Any] | None,
) -> str | None:
    if captions == NO_CAPTIONS:
        return None
    if captions is None:
        captions = find_captions_file(url, [path for path in below if "/" not in path])
    elif captions not in below:
        return full_url(*filesystem(captions, storage_options))
    if not captions.lower().endswith(ENDINGS):
        raise ConfigError(f"--captions {captions}: its name must end in {', '.join(ENDINGS)}")
    return full_url(fs, f"{root.rstrip('/')}/{captions}")


def folder_samples(
    shard: Shard, options: ReadOptions, wanted: Callable[[int], bool]
) -> Iterator[Sample | None]:
    """One item an image, in the order of `shard.members`; None in place of those not wanted.

    Raises:
        ShardError: the captions file cannot be understood.
        OSError and others of `storage.is_transient`: the captions file could not be read.
    """
    fields = _fields(shard, options)
    with fetcher(options) as fetch:
        for start in range(0, len(shard.members), _BATCH_IMAGES):
            batch = list(enumerate(shard.members[start : start + _BATCH_IMAGES], start))
            urls = [f"{shard.url}/{path}" if wanted(i) else None for i, (path, _) in batch]
            images = fetch.fetch(urls, missing="missing_image")
            for (index, (path, name)), image in zip(batch, images, strict=True):
                if image is None:
                    yield None
                    continue
                entries = fields.get(name, []) if name is not None else []
                captions = [find_caption(entry, options.caption_column) for entry in entries]
                yield Sample(
                    path,
                    index,
                    image if isinstance(image, bytes) else None,
                    "\n".join(dict.fromkeys(filter(None, captions))) or None,
                    {key: value for entry in entries for key, value in entry.items()},
                    image_ref(shard.url, path),
                    image if isinstance(image, tuple) else None,
                )


def _fields(shard: Shard, options: ReadOptions) -> dict[str, list[Mapping[str, Any]]]:
    """The captions file's entries for the shard's images, by name in that file."""
    found: dict[str, list[Mapping[str, Any]]] = {name: [] for _, name in shard.members if name is not None}
    if shard.captions is None or not found:
        return found
    try:
        for name, entry in read_captions(shard.captions, options.storage_options):
            if name in found:
                found[name].append(entry)
    except ConfigError as error:
        raise ShardError("unreadable_caption", str(error)) from error
    return found
