"""Functions of tensors as CUDA graphs: a pass of hundreds of kernels is launched by one call.

Launching by the host takes 6 to 11 ms a batch and holds Python's lock, which the threads that decode and
encode want too (docs/log.md, 2026-11-26).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Tensors = tuple[Tensor, ...]


class Graphed:
    """A function of tensors that waits for nothing and whose shapes repeat; captured once a shape.

    On other devices than CUDA it is the function itself. For one thread at a time, in inference mode.

    Args:
        function: pure; takes and gives tensors on one device.
    """

    def __init__(self, function: Callable[..., Tensors]) -> None:
        self._function = function
        self._captured: dict[tuple[object, ...], tuple[torch.cuda.CUDAGraph, Tensors, Tensors]] = {}

    def __call__(self, *inputs: Tensor) -> Tensors:
        """What the function gives, in tensors of its own."""
        if inputs[0].device.type != "cuda":
            return self._function(*inputs)
        shapes = tuple((one.shape, one.dtype) for one in inputs)
        if shapes not in self._captured:
            self._captured[shapes] = self._capture(inputs)
        graph, places, outputs = self._captured[shapes]
        for place, given in zip(places, inputs, strict=True):
            place.copy_(given)
        graph.replay()
        # The next replay writes to the same places.
        return tuple(one.clone() for one in outputs)

    def _capture(self, inputs: Tensors) -> tuple[torch.cuda.CUDAGraph, Tensors, Tensors]:
        places = tuple(one.clone() for one in inputs)
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):  # compiles, chooses algorithms, loads kernels: not to be captured
            for _ in range(2):
                self._function(*places)
        torch.cuda.current_stream().wait_stream(aside)
        graph = torch.cuda.CUDAGraph()
        # Other threads go on with their own work meanwhile.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            outputs = self._function(*places)
        return graph, places, outputs
