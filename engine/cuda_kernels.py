"""Whether kernels of our own run on a device: the one place that decides it."""

from __future__ import annotations

import functools
from importlib.util import find_spec

import torch


@functools.cache
def has_kernels(device: torch.device) -> bool:
    """On CUDA, where Triton is installed: it comes with torch there."""
    return device.type == "cuda" and find_spec("triton") is not None
