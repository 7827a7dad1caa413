"""Initial weights: published CLIP and SAM towers, the SSP encoder as initialised."""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from sspsam.errors import ArchitectureError, CheckpointError
from sspsam.modeling.model import SSPSAM, load_strict
from sspsam.storage.local_copies import fetch

CLIP_HOME = "CLIP in transformers' names, such as hf://openai/clip-vit-base-patch16/model.safetensors"
SAM_HOME = (
    "a SAM checkpoint of github.com/facebookresearch/segment-anything, such as "
    "https://dl.fbaipublicfiles.com/segment_anything/sam_vit_h_4b8939.pth"
)

#: transformers' names -> ours.
_CLIP_NAMES = (
    (re.compile(r"vision_model\.(.+)"), r"clip.vision.\1"),
    (re.compile(r"text_model\.(.+)"), r"clip.text.\1"),
    (re.compile(r"(visual_projection\.weight|text_projection\.weight|logit_scale)"), r"clip.\1"),
)
_BUFFERS = ("position_ids",)  # which older files carry


def load_towers(model: SSPSAM, clip: str, sam: str) -> None:
    """Put published weights into both towers and into SAM's prompt encoder and mask decoder.

    Args:
        model: of the layout of the files.
        clip: file or URL of CLIP's weights (`CLIP_HOME`).
        sam: file or URL of SAM's (`SAM_HOME`).

    Raises:
        CheckpointError: a file is damaged, or would run code when unpickled.
        ArchitectureError: tensors are missing, extra or misshapen; lists them.
    """
    found = {}
    for name, tensor in _read(clip).items():
        if not name.endswith(_BUFFERS):
            found[_clip_name(name)] = tensor
    found |= {f"sam.{name}": tensor for name, tensor in _read(sam).items()}
    found |= {n: t for n, t in model.state_dict().items() if n.startswith("ssp_encoder.")}
    try:
        load_strict(model, found, f"{clip} with {sam}")
    except ArchitectureError as error:
        homes = f"--clip takes {CLIP_HOME}; --sam takes {SAM_HOME}"
        raise ArchitectureError(f"{error}\n(see --preset for the layout; {homes})") from error


def _clip_name(name: str) -> str:
    for theirs, ours in _CLIP_NAMES:
        if match := theirs.fullmatch(name):
            return match.expand(ours)
    return f"clip.{name}"


def _read(source: str) -> Mapping[str, Tensor]:
    path = fetch(source) if "://" in source else Path(source)
    if not path.is_file():
        raise CheckpointError(f"{source} is no file; --clip takes {CLIP_HOME}; --sam takes {SAM_HOME}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        raise CheckpointError(f"{source} cannot be loaded without running code in it: {error}") from error
    if not isinstance(content, Mapping) or not all(isinstance(t, Tensor) for t in content.values()):
        raise CheckpointError(f"{source} is no plain state dict; --sam takes {SAM_HOME}")
    return content
