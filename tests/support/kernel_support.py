"""What tests of kernels share."""

from __future__ import annotations

import pytest
import torch

from engine import cpu_kernels

needs_kernels = pytest.mark.skipif(
    not cpu_kernels.are_there(),
    reason="no kernels for this platform, so that torch's operators are used",
)


def numbers(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))
