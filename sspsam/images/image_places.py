"""Where a dataset's images may be read from, and where they are now: references in data are not trusted."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import unquote, urlsplit

from sspsam.errors import DataError
from sspsam.storage.local_paths import absolute

_MOVE = re.compile(r"(.+?)=((?:/|\.{1,2}/|[A-Za-z][A-Za-z0-9+.-]*://).*)")
_WEB = ("http", "https")
TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
PARQUETS = (".parquet", ".pq")


@dataclass(frozen=True)
class ImagePlaces:
    """Folders and files that image references may point into.

    Args:
        base: folder that relative references are relative to; None where none is known.
        named: folders or files that a person named.
        moved: (from, to): references below the one are read below the other.
        recorded: folders or files that the dataset's own manifest names as its input. Those in this machine's
            own network are not believed.
    """

    base: str | None = None
    named: tuple[str, ...] = ()
    moved: tuple[tuple[str, str], ...] = ()
    recorded: frozenset[str] = frozenset()

    @classmethod
    def of(cls, roots: Sequence[str], base: str | None, recorded: Iterable[str]) -> ImagePlaces:
        """Places as `--image-root` has them: PATH, where INPUT is now or what may be read too, or FROM=TO."""
        moves = [match.groups() for match in map(_MOVE.fullmatch, roots) if match]
        paths = [absolute(root) for root in roots if not _MOVE.fullmatch(root)]
        moved = [(old.rstrip("/"), absolute(new).rstrip("/")) for old, new in moves]
        named = (*paths, *(new for _, new in moved))
        if paths and base:
            moved.append((base.rstrip("/"), paths[0].rstrip("/")))
        believed = frozenset(_normal(url) for url in recorded if _believed(url))
        return cls(paths[0] if paths else base, named, tuple(moved), believed)

    @classmethod
    def of_dataset(
        cls, dataset: str, read_json: Callable[[str], Mapping[str, Any] | None], roots: Sequence[str] = ()
    ) -> ImagePlaces:
        """The places of an annotation dataset: below itself, what its manifests record, and `--image-root`.

        Args:
            dataset: its folder or URL, as a person named it.
            read_json: a manifest of it by name, None where there is none.
        """
        made = next(
            filter(None, map(read_json, ("_curation.json", "_agreement.json", "_calibration.json"))), {}
        )
        imported = read_json("_import.json") or {}
        run = mapping(read_json("_run.json") or made.get("run"))
        saved = mapping(made.get("image_places"))
        given = [mapping(mapping(start).get("options")).get("input") for start in _list(run, "runs")[-1:]]
        base = next(iter(_texts([saved.get("base"), run.get("image_root"), *given])), None)
        urls = [mapping(shard).get("url") for shard in _list(run, "inputs")]
        kept = [_texts(pair) for pair in _list(saved, "moved") if isinstance(pair, list)]
        found = cls.of(roots, base, _texts([*urls, base, imported.get("images_at"), *_list(saved, "places")]))
        return replace(
            found,
            moved=(*found.moved, *((pair[0], pair[1]) for pair in kept if len(pair) == 2)),
            recorded=found.recorded | {_normal(absolute(dataset))},
        )

    def to_json(self) -> dict[str, Any]:
        """What `_curation.json` and its like keep of the places, beside the inputs of its run."""
        return {"base": self.base, "places": sorted(self.named), "moved": [list(pair) for pair in self.moved]}

    def locate(self, ref: Mapping[str, Any]) -> dict[str, Any]:
        """The reference with an absolute URL, whether or not it may be followed.

        Raises:
            DataError: it has no URL, or a relative one, and nobody says relative to what.
        """
        url = str(ref.get("url") or "")
        if not url:
            raise DataError("the row has no image reference (image_ref.url is null)")
        if "://" not in url and not url.startswith("/"):
            if self.base is None:
                raise DataError(f"{url} is relative to INPUT, and no manifest says which: --image-root PATH")
            url = self.base if url == "." else f"{self.base.rstrip('/')}/{url}"
        if not _below(url, self._named):
            for old, new in self.moved:
                if url == old or url.startswith(f"{old}/"):
                    url = new + url[len(old) :]
                    break
        return {**ref, "url": url}

    def admit(self, ref: Mapping[str, Any]) -> dict[str, Any]:
        """`locate`, and DataError unless the file that would be opened is in one of the places."""
        found = self.locate(ref)
        url = found["url"] if is_archive(found) else f"{found['url'].rstrip('/')}/{found['member']}"
        if not _below(url, self._named | self.recorded):
            folder = url.partition("?")[0].rpartition("/")[0]
            raise DataError(
                f"{url} is outside of the dataset's own input and is not followed: "
                f"--image-root {folder} (of evaluate: --images) allows it if you trust the dataset"
            )
        return found

    @property
    def _named(self) -> frozenset[str]:
        return frozenset(map(_normal, self.named))


def is_archive(ref: Mapping[str, Any]) -> bool:
    """Whether the URL of a reference is the file to open; else that is its member, a path below the URL."""
    ending = str(ref["url"]).lower().split("?", 1)[0].endswith((*TARS, *PARQUETS))
    return ref.get("member") is None or ref.get("offset") is not None or ending


def absolute_root(root: str) -> str:
    """A value of `--image-root` that holds from any folder."""
    match = _MOVE.fullmatch(root)
    return f"{match[1]}={absolute(match[2])}" if match else absolute(root)


def _normal(url: str) -> str:
    """`protocol://path` without a trailing slash; local paths with their links resolved."""
    protocol, found, path = url.partition("://")
    protocol, path = (protocol.lower(), path) if found else ("file", url)
    if protocol in ("file", "local"):
        protocol, path = "file", os.path.realpath(path)
    elif protocol in _WEB:
        host, slash, rest = path.partition("/")
        path = f"{host.lower()}{slash}{rest}"
    return f"{protocol}://{path.rstrip('/')}"


def _below(url: str, places: frozenset[str]) -> bool:
    """Whether `url` is one of the places (each `_normal`) or lies in one."""
    if "::" in url or "\\" in url or "\0" in url:  # fsspec's chains open what stands behind the first part
        return False
    parts = unquote(url).replace("\\", "/").split("/")
    if ".." in parts:
        return False
    return any(one in places for one in _with_parents(_normal(url)))


def _with_parents(normal: str) -> Iterator[str]:
    protocol, _, path = normal.partition("://")
    yield normal
    if protocol in _WEB:
        path = re.split(r"[?#]", path, maxsplit=1)[0]
    while path:
        yield f"{protocol}://{path.rstrip('/')}"
        path = path.rpartition("/")[0]
    yield f"{protocol}://"


def mapping(value: object) -> dict[str, Any]:
    """A JSON object of a manifest; {} for what is none."""
    return value if isinstance(value, dict) else {}


def _list(values: Mapping[str, Any], name: str) -> list[Any]:
    found = values.get(name)
    return found if isinstance(found, list) else []


def _texts(values: Iterable[object]) -> list[str]:
    """Absolute paths and URLs among the values of a manifest, which anybody may have written."""
    return [text for text in values if isinstance(text, str) and (text.startswith("/") or "://" in text)]


def _believed(url: str) -> bool:
    """Whether a manifest may name this as input: a folder, and not in this machine's own network."""
    return bool(_normal(url).partition("://")[2]) and not _own_network(url)


def _own_network(url: str) -> bool:
    """Whether a web address is one that only this machine or its network reaches."""
    if urlsplit(url).scheme.lower() not in _WEB:
        return False
    host = (urlsplit(url).hostname or "").rstrip(".")
    try:
        return not ipaddress.ip_address(host).is_global
    except ValueError:
        # Without a dot, or all digits (2130706433, 0x7f.1), a resolver may take it for a private address.
        return "." not in host or host.endswith((".local", ".internal", ".localhost")) or _numeric(host)


def _numeric(host: str) -> bool:
    return re.fullmatch(r"(0x[0-9a-f]*|\d+)(\.(0x[0-9a-f]*|\d+))*", host) is not None
