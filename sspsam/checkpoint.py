"""Weights in and out: bundled names, folders, authors' files, remote URLs. Nothing runs pickled code.

A folder holds `config.json`, `model.safetensors` and `tokenizer.txt.gz`. The safetensors file also
carries the config in its metadata, so that it loads on its own with a bundled vocabulary.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import pickle
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from sspsam.authors_layout import infer_config, is_authors_layout, to_ours
from sspsam.errors import ArchitectureError, CheckpointError, ConfigError, UnknownModelError, one_line
from sspsam.known_models import DRAWN_SCENES
from sspsam.language.tokenizer import Tokenizer
from sspsam.model_config import PRESETS, SSPSAMConfig
from sspsam.storage.hub import CHECKPOINTS, HubModel, commit_of, fetch_model
from sspsam.storage.local_copies import fetch, file_sha256, verify_sha256
from sspsam.storage.local_paths import located

CONFIG_FILE, WEIGHTS_FILE, TOKENIZER_FILE = "config.json", "model.safetensors", "tokenizer.txt.gz"
RANDOM_PREFIX = "random:"


def bundled_models() -> list[str]:
    """Names of the models that come with the package."""
    root = Path(str(files("sspsam"))) / "weights"
    return sorted(path.parent.name for path in root.glob(f"*/{WEIGHTS_FILE}"))


def default_model() -> str:
    """The bundled model, or a random one of its shape where none is bundled."""
    return "tiny" if "tiny" in bundled_models() else f"{RANDOM_PREFIX}tiny"


def located_model(source: str, home: str = "") -> str:
    """A source that holds from any folder: `located`, but for bundled names."""
    return source if source in bundled_models() else located(source, home)


@dataclass(frozen=True)
class Weights:
    """What a checkpoint holds: sizes, tensors, the tokenizer that they were trained with.

    `source`: {"name": as given, "sha256": hex digest of the weights file}, for bundled ones `trained_on`, for
    those of the hub `commit`.
    """

    config: SSPSAMConfig
    tensors: dict[str, Tensor]
    tokenizer: Tokenizer
    source: dict[str, str]


def read_weights(source: str, *, sha256: str | None = None) -> Weights:
    """The weights of a source that is not `random:PRESET`, on the CPU.

    Args and raises: as `SSPSAM.from_pretrained`.
    """
    found = resolve(source, sha256=sha256)
    if found.weights.suffix == ".safetensors":
        config, tensors = _read_safetensors(found)
    else:
        config, tensors = _read_pickle(found.weights)
    tokenizer = Tokenizer(found.merges or config.clip.vocabulary, config.clip.context_length)
    if tokenizer.vocab_size != config.clip.vocab_size:
        raise ArchitectureError(
            f"{tokenizer.path} holds {tokenizer.vocab_size} tokens, but the model was made for "
            f"{config.clip.vocab_size}; put the checkpoint's own {TOKENIZER_FILE} beside it"
        )
    digest = sha256 or file_sha256(found.weights)
    commit = commit_of(found.weights)
    marks = bundled_mark(digest) | ({"commit": commit} if commit else {})
    return Weights(config, tensors, tokenizer, {"name": source, "sha256": digest} | marks)


def bundled_mark(sha256: str) -> dict[str, str]:
    """{"trained_on": ...} for the digest of bundled weights, under whatever name they came; else empty."""
    root = Path(str(files("sspsam"))) / "weights"
    known = {file_sha256(root / name / WEIGHTS_FILE) for name in bundled_models()}
    return {"trained_on": DRAWN_SCENES} if sha256.lower() in known else {}


@dataclass(frozen=True)
class ModelFiles:
    """Local files of one model. `config` and `merges` are None where a source has none of its own."""

    weights: Path
    config: Path | None
    merges: Path | None


def resolve(source: str, *, sha256: str | None = None) -> ModelFiles:
    """The local files of a source, fetched into the cache if it is remote.

    Raises: as `SSPSAM.from_pretrained`.
    """
    if "://" in source:
        return _fetched(source, sha256)
    path = Path(source)
    if source in bundled_models():
        path = Path(str(files("sspsam"))) / "weights" / source
    if path.is_dir():
        path = path / WEIGHTS_FILE
        if not path.is_file():
            raise UnknownModelError(
                f"the folder {source} holds no {WEIGHTS_FILE}; `sspsam convert` makes such a folder, and "
                "a .pth file is named itself, not its folder"
            )
    if not path.is_file():
        known = [*bundled_models(), *(RANDOM_PREFIX + name for name in PRESETS)]
        raise UnknownModelError(
            f"no model {source!r}: it is no file or folder here, and the bundled names are "
            f"{', '.join(known)}; remote ones need a URL (hf://, s3://, https://); see `sspsam models`"
        )
    if sha256 is not None:
        verify_sha256(path, sha256)
    config, merges = (path.parent / name for name in (CONFIG_FILE, TOKENIZER_FILE))
    return ModelFiles(path, config if config.is_file() else None, merges if merges.is_file() else None)


def _fetched(url: str, sha256: str | None) -> ModelFiles:
    on_hub = HubModel.parse(url)
    if on_hub is not None:
        found = fetch_model(on_hub, (CONFIG_FILE, TOKENIZER_FILE), sha256=sha256)
        return ModelFiles(found[""], found.get(CONFIG_FILE), found.get(TOKENIZER_FILE))
    if url.split("?", maxsplit=1)[0].endswith(CHECKPOINTS):
        return ModelFiles(fetch(url, sha256=sha256), None, None)
    weights, config, merges = (
        fetch(f"{url.rstrip('/')}/{name}", sha256=sha256 if name == WEIGHTS_FILE else None)
        for name in (WEIGHTS_FILE, CONFIG_FILE, TOKENIZER_FILE)
    )
    return ModelFiles(weights, config, merges)


def load_config(source: str | Path, *, sha256: str | None = None) -> SSPSAMConfig:
    """The config of a source, without building the model. Raises: as `SSPSAM.from_pretrained`."""
    source = str(source)
    if source.startswith(RANDOM_PREFIX):
        return random_config(source)
    found = resolve(source, sha256=sha256)
    if found.weights.suffix == ".safetensors":
        return _read_safetensors(found)[0]
    return _read_pickle(found.weights)[0]


def fingerprint(source: str | Path, *, sha256: str | None = None) -> str:
    """What tells two models apart in a run manifest, without building one.

    Returns:
        The weights file's sha256 as a hex digest (fetched first if it is remote); for
        `random:PRESET` that of its config, since its weights follow from it.

    Raises: as `SSPSAM.from_pretrained`.
    """
    source = str(source)
    if source.startswith(RANDOM_PREFIX):
        config = json.dumps(random_config(source).to_dict(), sort_keys=True)
        return hashlib.sha256(config.encode()).hexdigest()
    found = resolve(source, sha256=sha256)
    return sha256.lower() if sha256 else file_sha256(found.weights)


def write_weights(
    folder: str | Path,
    config: SSPSAMConfig,
    tensors: Mapping[str, Tensor],
    tokenizer: Tokenizer,
    dtype: torch.dtype | None = None,
) -> None:
    """Write config.json, model.safetensors and the merges file; weights last, by rename.

    Args:
        folder: made if it does not exist.
        dtype: type of the stored floating-point tensors; their own if left out.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(config.to_dict(), indent=2)
    (folder / CONFIG_FILE).write_text(text + "\n")
    tokenizer.save(folder / TOKENIZER_FILE)
    state = {name: tensor.detach().cpu() for name, tensor in tensors.items()}
    if dtype is not None:
        state = {k: v.to(dtype) if v.is_floating_point() else v for k, v in state.items()}
    state = {name: tensor.contiguous() for name, tensor in state.items()}
    partial = folder / f".{WEIGHTS_FILE}.partial"
    save_file(state, partial, metadata={"format": "pt", "config": text})
    # safetensors lets only the owner read; a model folder is for whoever may read its config.
    partial.chmod(stat.S_IMODE((folder / CONFIG_FILE).stat().st_mode))
    partial.replace(folder / WEIGHTS_FILE)


def random_config(source: str) -> SSPSAMConfig:
    """`random:PRESET` or `random:PRESET/SAM`."""
    preset, _, sam = source.removeprefix(RANDOM_PREFIX).partition("/")
    return SSPSAMConfig.preset(preset, sam=sam or None)


def _read_safetensors(found: ModelFiles) -> tuple[SSPSAMConfig, dict[str, Tensor]]:
    path = found.weights
    try:
        with safe_open(path, framework="pt") as stored:
            metadata = stored.metadata() or {}
            state = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is damaged or no safetensors file: {error}") from error
    text = found.config.read_bytes() if found.config else metadata.get("config")
    if text is None:
        if is_authors_layout(state):
            return infer_config(state), to_ours(state)
        raise ArchitectureError(f"{path} has no config: put its {CONFIG_FILE} beside it")
    try:
        return SSPSAMConfig.from_dict(json.loads(text)), state
    except ConfigError as error:
        raise ConfigError(f"{found.config or path}: {error}") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{found.config or path}: the config is not JSON: {error}") from error


def _read_pickle(path: Path) -> tuple[SSPSAMConfig, dict[str, Tensor]]:
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # Torch's own message goes on to advise loading with weights_only=False: never that.
        found = re.search(r"Unsupported (?:global: )?\w+ [\w.]+", str(error))
        reason = f" ({found.group()})" if found else ""
        raise CheckpointError(
            f"{path} is not loaded, because unpickling it would run code or it is damaged{reason}; "
            "get the checkpoint again, or have its owner save it as safetensors"
        ) from error
    except Exception as error:  # a damaged pickle raises anything
        raise CheckpointError(f"{path} is damaged or no PyTorch checkpoint: {one_line(error)}") from error
    state = content.get("model", content) if isinstance(content, dict) else None
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise ArchitectureError(f"{path} holds no state dict under the key 'model'")
    state = {str(name).removeprefix("module."): tensor for name, tensor in state.items()}
    for name, tensor in state.items():
        # A view may claim any shape over one number: copies of it would fill the memory.
        if tensor.numel() * tensor.itemsize > tensor.untyped_storage().nbytes():
            raise ArchitectureError(f"{path}: {name} of shape {tuple(tensor.shape)} is not all in the file")
    try:
        return infer_config(state), to_ours(state)
    except (ArchitectureError, ConfigError) as error:
        raise ArchitectureError(f"{path}: {error}") from error
