"""A model that asks for memory without end where a phrase says so; with a limit that protects the machine."""

from __future__ import annotations

import os
import resource
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from examples.colour_model import ColourModel
from sspsam.open_models.protocol import Drawing

_LIMIT = 2**30  # bytes over what the process holds when it has loaded the model


class HungryModel(ColourModel):
    """`cgroup`: folder of a memory cgroup to join, whose processes the kernel kills; "": RLIMIT_DATA."""

    def __init__(self, device: str | None = None, *, cgroup: str = "") -> None:
        super().__init__(device)
        if cgroup:
            (Path(cgroup) / "memory.limit_in_bytes").write_text(str(_LIMIT))
            (Path(cgroup) / "cgroup.procs").write_text(str(os.getpid()))
        else:
            held = Path("/proc/self/status").read_text().partition("VmData:")[2].split()[0]
            resource.setrlimit(resource.RLIMIT_DATA, (int(held) * 1024 + _LIMIT,) * 2)

    def draw(self, image: np.ndarray, phrases: Sequence[str]) -> list[Drawing]:
        eaten = []
        while any("eats memory" in phrase for phrase in phrases):
            eaten.append(np.ones(2**23))
        return super().draw(image, phrases)
