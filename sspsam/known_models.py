"""The models that are known here: what `--model` takes, what each was trained on, what we verified of it."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

DRAWN_SCENES = "drawn scenes"
PUBLISHED = "hf://wayneicloud/SSP-SAM"


@dataclass(frozen=True)
class KnownModel:
    """One model. `name` is what `--model` takes; `verified` and `unverified` are by us."""

    name: str
    about: str
    trained_on: str
    verified: str
    unverified: str


KNOWN_MODELS = (
    KnownModel(
        "tiny",
        "bundled; a demo of the whole path, no download",
        f"{DRAWN_SCENES} (sspsam.scenes): means nothing on photographs",
        "layout and numbers: sspsam/weights/tiny/MODEL_CARD.md",
        "nothing",
    ),
    KnownModel(
        PUBLISHED,
        "the repository of SSP-SAM's authors (arXiv 2603.18086)",
        "photographs with referring expressions, as their paper says",
        "that checkpoints of the layout in their public code are read, and give its arrays within 1e-4"
        " (random weights)",
        "which files are there, and their numbers: we have never had the published weights",
    ),
)


def caveat(model: Mapping[str, Any] | None) -> str | None:
    """What whoever looks at masks of this model must know, as one sentence; None if there is nothing.

    Args:
        model: `model` of a run's manifest, or `SSPSAM.source`. `trained_on` is there for bundled weights,
            found by their digest; manifests from before that say it by the name.
    """
    model = model or {}
    name = str(model.get("name"))
    if model.get("trained_on") == DRAWN_SCENES or name == "tiny":
        return (
            f"Model {name} is a demo, trained on {DRAWN_SCENES} only: its masks mean nothing on photographs."
        )
    if name.startswith("random:"):
        return f"Model {name} has random weights: its masks mean nothing."
    return None


@functools.cache
def drawn_shards() -> dict[str, int]:
    """{sha256: bytes} of the known shards of drawn scenes: those that `examples/build.py` made."""
    known: dict[str, int] = json.loads((files("sspsam") / "assets" / "drawn_shards.json").read_text())
    return known


def model_warning(model: Mapping[str, Any] | None) -> str | None:
    """`caveat`, and how to get a model that knows photographs."""
    said = caveat(model)
    return said and f"{said} For photographs: --model {PUBLISHED}, or what else `sspsam models` lists."
