"""Records a forward on a CUDA device once, to start it again with one call instead of hundreds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch

Output = TypeVar("Output")


class CudaGraphs:
    """Graphs of one device. They share a pool of memory: only one may run at a time."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool: Any = None

    def record(self, forward: Callable[[], Output]) -> Callable[[], Output]:
        """What runs `forward` again and gives the same tensors, with new contents.

        They must be used, or copied, before another graph of these runs. Raises whatever CUDA says
        of a forward that cannot be recorded, one that waits for the device for instance.
        """
        with torch.cuda.device(self._device):
            aside = torch.cuda.Stream()
            aside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(aside):
                forward()  # compiles kernels and lets libraries choose theirs
            torch.cuda.current_stream().wait_stream(aside)
            graph = torch.cuda.CUDAGraph()
            # Other threads may load models meanwhile, which no graph is to notice.
            with torch.cuda.graph(graph, self._pool, capture_error_mode="thread_local"):
                output = forward()
            self._pool = graph.pool()

        def replay() -> Output:
            graph.replay()
            return output

        return replay
