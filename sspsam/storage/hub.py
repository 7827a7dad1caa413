"""Models on the Hugging Face Hub: which checkpoints a repository holds, and one of them as local files.

Requests, token, offline mode and cache (`HF_ENDPOINT`, `HF_TOKEN`, `HF_HUB_OFFLINE`, `HF_HOME`) are those of
huggingface_hub, so what its own command downloaded is found, and the other way round.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar
from urllib.parse import unquote

from sspsam.errors import CheckpointError, UnknownModelError
from sspsam.storage.downloads import DownloadBar, announce, size_text
from sspsam.storage.local_copies import (
    EXTRAS,
    UnreachableError,
    file_sha256,
    verify_sha256,
    with_retries,
)

logger = logging.getLogger(__name__)

CHECKPOINTS = (".pth", ".pt", ".safetensors")
_URL = re.compile(
    r"hf://(?:models/)?(?!(?:datasets|spaces|buckets|kernels)/)(?P<repo>[^/@]+/[^/@]+)"
    r"(?:@(?P<revision>refs/(?:pr|convert)/[^/]+|[^/]+))?/?(?P<path>.*)"
)
_FILES_NAMED = 8
#: Where huggingface_hub's cache keeps the files of a commit.
_SNAPSHOT = re.compile(r"/models--[^/]+/snapshots/([0-9a-f]{40})/")
T = TypeVar("T")


@dataclass(frozen=True)
class HubModel:
    """`hf://ORG/REPO[@REVISION][/PATH]`: a branch, tag or commit; a file, or a folder to look into."""

    repo: str
    revision: str
    path: str

    @classmethod
    def parse(cls, url: str) -> HubModel | None:
        """None for what is no model repository, such as `hf://datasets/...`: fsspec reads those."""
        found = _URL.fullmatch(url)
        if found is None:
            return None
        return cls(found["repo"], unquote(found["revision"] or "main"), found["path"].strip("/"))

    def url(self, path: str = "") -> str:
        pin = "" if self.revision == "main" else f"@{self.revision.replace('/', '%2F')}"
        return f"hf://{self.repo}{pin}" + (f"/{path}" if path else "")

    def checkpoints(self, sizes: Mapping[str, int | None]) -> list[str]:
        """Those of a repository's files that `path` names or holds and that may be weights."""
        inside = f"{self.path}/" if self.path else ""
        return sorted(
            name
            for name in sizes
            if name.endswith(CHECKPOINTS) and (name == self.path or name.startswith(inside))
        )


def fetch_model(model: HubModel, beside: tuple[str, ...], *, sha256: str | None = None) -> dict[str, Path]:
    """The one checkpoint that `model` means, and the files of its folder that are named in `beside`.

    Args:
        sha256: hex digest that the checkpoint must have. A cached one that has it needs no network.

    Returns:
        Local paths: the checkpoint's under "", the others' under their names, where they exist.

    Raises:
        UnknownModelError: no such repository, revision or checkpoint, or several: the message names them.
        ChecksumError: another sha256.
        CheckpointError: the hub cannot be reached or refuses, or huggingface_hub is missing.
    """
    cached = _cached(model)
    if sha256 is not None:
        for name in model.checkpoints(dict.fromkeys(cached)):
            if file_sha256(cached[name]) == sha256.lower():
                return _with_companions(name, beside, cached, cached.__getitem__)
    try:
        sizes = list_files(model)
    except UnreachableError as error:
        if not cached:
            raise CheckpointError(
                f"{model.url()} cannot be reached, and is not in the cache: {error}"
            ) from error
        logger.warning("%s cannot be reached (%s): using the cached copy", model.url(), error)
        name = choose(model, {name: path.stat().st_size for name, path in cached.items()})
        found = _with_companions(name, beside, cached, cached.__getitem__)
    else:
        name = choose(model, sizes)
        found = _with_companions(name, beside, sizes, lambda one: _download(model, one, sizes[one]))
    if sha256 is not None:
        verify_sha256(found[""], sha256, model.url(name))
    return found


def choose(model: HubModel, sizes: Mapping[str, int | None]) -> str:
    """The only checkpoint. Raises UnknownModelError if there is none or there are several."""
    found = model.checkpoints(sizes)
    if len(found) == 1:
        return found[0]
    where = model.url(model.path)
    if found:
        flags = "\n".join(f"  --model {model.url(name)}  ({size_text(sizes[name])})" for name in found)
        raise UnknownModelError(f"{where} holds {len(found)} checkpoints, name one of them:\n{flags}")
    names = sorted(sizes)
    more = f" and {len(names) - _FILES_NAMED:,} more" if len(names) > _FILES_NAMED else ""
    there = f"in {model.url()} are {', '.join(names[:_FILES_NAMED])}{more}" if names else "it is empty"
    raise UnknownModelError(f"{where} is or holds no checkpoint ({', '.join(CHECKPOINTS)}): {there}")


def list_files(model: HubModel) -> dict[str, int | None]:
    """Sizes, in bytes, of the repository's files at that revision.

    Raises:
        UnreachableError: the hub does not answer, or is not asked because HF_HUB_OFFLINE is set.
        Others as `fetch_model`.
    """
    api = _library(model).HfApi()
    info = _asked(model, lambda: api.model_info(model.repo, revision=model.revision, files_metadata=True))
    return {one.rfilename: one.size for one in info.siblings or ()}


def downloaded(model: HubModel) -> list[str]:
    """The checkpoints that the cache holds, by path in the repository. Nothing is asked of the hub."""
    return model.checkpoints(dict.fromkeys(_cached(model)))


def commit_of(file: Path) -> str | None:
    """The commit that a file of the cache was resolved to; None for a file from elsewhere."""
    found = _SNAPSHOT.search(file.absolute().as_posix() + "/")
    return found and found[1]


def _with_companions(
    name: str, beside: tuple[str, ...], there: Mapping[str, Any], get: Callable[[str], Path]
) -> dict[str, Path]:
    folder = PurePosixPath(name).parent
    others = {one: str(folder / one) for one in beside if str(folder / one) in there}
    return {"": get(name)} | {one: get(path) for one, path in others.items()}


def _cached(model: HubModel) -> dict[str, Path]:
    """What huggingface_hub's cache holds of the revision, by path in the repository."""
    library = _library(model)
    try:
        repositories = library.scan_cache_dir(library.constants.HF_HUB_CACHE).repos
    except library.CacheNotFound:
        return {}
    return {
        file.file_path.relative_to(revision.snapshot_path).as_posix(): file.file_path
        for repository in repositories
        if (repository.repo_type, repository.repo_id) == ("model", model.repo)
        for revision in repository.revisions
        if model.revision in (revision.commit_hash, *revision.refs)
        for file in revision.files
    }


def _download(model: HubModel, path: str, size: int | None) -> Path:
    library = _library(model)
    place = {"repo_id": model.repo, "filename": path, "revision": model.revision}
    if size and not isinstance(library.try_to_load_from_cache(**place), str):
        announce(model.url(path), size, Path(library.constants.HF_HUB_CACHE))
    try:
        return Path(_asked(model, lambda: library.hf_hub_download(**place, tqdm_class=DownloadBar)))
    except UnreachableError as error:
        raise CheckpointError(f"{model.url(path)} could not be downloaded: {error}") from error


def _library(model: HubModel) -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        mend = f"pip install 'sspsam[{EXTRAS['hf']}]'"
        raise CheckpointError(f"{model.url()}: hf:// needs another package: {mend}") from error
    return huggingface_hub


def _asked(model: HubModel, request: Callable[[], T]) -> T:
    """What a request gives; its errors as ours."""
    from huggingface_hub import constants, errors

    if constants.HF_HUB_OFFLINE:
        raise UnreachableError("HF_HUB_OFFLINE is set")
    token = "`hf auth login`, or HF_TOKEN"

    def known() -> T:
        try:
            return request()
        except errors.GatedRepoError as error:
            page = f"{constants.ENDPOINT}/{model.repo}"
            raise CheckpointError(
                f"{model.url()} is gated: accept its conditions at {page}, then {token}"
            ) from error
        except errors.RepositoryNotFoundError as error:
            raise UnknownModelError(
                f"{model.url()}: no such repository; a private one needs a token: {token}"
            ) from error
        except errors.RevisionNotFoundError as error:
            raise UnknownModelError(
                f"hf://{model.repo} has no branch, tag or commit {model.revision!r}"
            ) from error
        except errors.HFValidationError as error:
            raise UnknownModelError(f"{model.url()}: {error}") from error
        except errors.HfHubHTTPError as error:
            if error.response.status_code in (401, 403):
                raise CheckpointError(f"{model.url()}: access denied; check the token: {token}") from error
            raise

    return with_retries(model.url(), known)
