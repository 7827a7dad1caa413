"""Models in transformers' layout: a local folder of one, its digest, its tokenizer and image settings."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image

from sspsam.errors import CheckpointError, ConfigError, UnknownModelError
from sspsam.storage.local_copies import file_sha256

Model = TypeVar("Model", bound=torch.nn.Module)

#: What is read of a repository. Pickled weights are not: nothing that is loaded may run code.
_PATTERNS = ("*.json", "*.safetensors", "*.txt")
_REPOSITORY = re.compile(r"(?:hf://)?([\w.-]+/[\w.-]+)(?:@([\w./-]+))?")


def local_folder(source: str) -> Path:
    """The folder of a model: as given, or fetched from the Hugging Face hub into its own cache.

    Args:
        source: a folder, or org/repo[@revision]. Token, cache and offline mode are huggingface_hub's.

    Raises:
        UnknownModelError: neither a folder nor a repository that can be had; the message says why.
    """
    if Path(source).is_dir():
        return Path(source)
    match = _REPOSITORY.fullmatch(source)
    if match is None:
        raise UnknownModelError(f"{source} is no folder here, and not org/repo[@revision] of the hub")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError

    repository, revision = match.groups()
    try:
        return Path(snapshot_download(repository, revision=revision, allow_patterns=list(_PATTERNS)))
    except GatedRepoError as error:
        raise UnknownModelError(
            f"{source}: accept its licence at https://huggingface.co/{repository}, then `hf auth login`"
        ) from error
    except (OSError, ValueError) as error:  # what huggingface_hub raises, offline mode included
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UnknownModelError(f"{source} is no folder here, and not had from the hub: {reason}") from error


def folder_digest(*sources: tuple[str, Collection[str]]) -> str:
    """sha256 over names and contents of the files that make up models: weights, config, tokenizer.

    sources: each with the values of `model_type` that it may have. Raises CheckpointError.
    """
    digest = hashlib.sha256()
    for source, kinds in sources:
        folder = local_folder(source)
        model_type(folder, kinds)
        files = {path for pattern in _PATTERNS for path in folder.glob(pattern)}
        if not any(path.suffix == ".safetensors" for path in files):
            raise CheckpointError(f"{source} holds no .safetensors file; pickled weights are not loaded")
        for path in sorted(files, key=lambda path: path.name):
            digest.update(f"{path.name} {file_sha256(path)}\n".encode())
    return digest.hexdigest()


def load(kind: type[Model], folder: Path, device: torch.device) -> Model:
    """A model of transformers in evaluation mode. Raises CheckpointError unless every weight is there."""
    try:
        model, told = kind.from_pretrained(  # type: ignore[attr-defined]
            folder, use_safetensors=True, local_files_only=True, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{folder} is no {kind.__name__}: {str(error).splitlines()[0]}") from error
    if missing := sorted(told["missing_keys"]):
        raise CheckpointError(
            f"{folder} lacks {len(missing)} weights of {kind.__name__}, such as {missing[0]}"
        )
    return model.eval().to(device)  # type: ignore[no-any-return]


def model_type(folder: Path, known: Collection[str]) -> str:
    """`model_type` of a folder's config.json, such as "sam2". Raises CheckpointError unless it is `known`."""
    try:
        found = str(json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"])
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"{folder} holds no config.json of transformers ({error})") from error
    if found not in known:
        raise CheckpointError(f"{folder} is a model of type {found}; wanted here: {' or '.join(known)}")
    return found


def tokenizer(folder: Path) -> Any:
    """The folder's tokenizer. Raises CheckpointError."""
    from transformers import AutoTokenizer

    try:
        return AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder} holds no tokenizer: {str(error).splitlines()[0]}") from error


def image_settings(folder: Path) -> dict[str, Any]:
    """What the folder says of its image processor: `size`, `image_mean`, `image_std`, ..."""
    for name, part in (("preprocessor_config.json", None), ("processor_config.json", "image_processor")):
        if (folder / name).is_file():
            found = json.loads((folder / name).read_text(encoding="utf-8"))
            return dict(found if part is None else found.get(part) or {})
    raise CheckpointError(f"{folder} holds no preprocessor_config.json: get the whole repository")


def stretched(image: np.ndarray, settings: dict[str, Any], device: torch.device) -> torch.Tensor:
    """(H, W, 3) uint8 -> (1, 3, h, w) float32, resized without regard to its sides, normalised.

    As the image processors of SAM 2 and SAM 3 do, which need torchvision.
    """
    size = (settings["size"]["width"], settings["size"]["height"])
    resized = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))
    mean, std = (
        torch.tensor(settings[name], device=device)[:, None, None] for name in ("image_mean", "image_std")
    )
    pixels = torch.from_numpy(resized.copy()).to(device).permute(2, 0, 1).float() / 255
    return ((pixels - mean) / std)[None]


def best_device(device: str | None) -> torch.device:
    """The device by its name; None takes CUDA, else MPS, else the CPU. Raises ConfigError."""
    if device is None:
        mps = "mps" if torch.backends.mps.is_available() else "cpu"
        device = "cuda" if torch.cuda.is_available() else mps
    try:
        return torch.zeros(0, device=device).device
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"--device {device}: {str(error).splitlines()[0]}") from error
