"""What tenants tell one another of survival. Pure.

A tenant's own counts come first. Behind them stand those of the others, each of whom has the same
weight at most, so that none can steer another's choices far: with n own drafts in a context, the
others move a pass rate by no more than weight / (n + weight).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from cluster.statistics.arrays import Floats


@dataclass(frozen=True, slots=True)
class Weights:
    """In drafts, by drafter and context: what one tenant counts for at most among the others, and
    what all others count for at most beside a tenant's own."""

    tenant: float
    shared: float


def weighed(
    counts: Mapping[str, Floats], shape: tuple[int, ...], weights: Weights
) -> tuple[dict[str, Floats], Floats]:
    """Each tenant's counts with the others' behind them, and what a new tenant starts from.

    Counts are [at risk or passed, drafter, context, depth]. Impossible ones are made possible.
    """
    everybody = np.stack([np.zeros(shape), *counts.values()])  # the first has counted nothing
    own = _possible(everybody)
    clipped = _clipped(own, weights.tenant)
    others = np.maximum(clipped.sum(axis=0) - clipped, 0.0)
    start, *merged = own + _clipped(others, weights.shared)
    return dict(zip(counts, merged, strict=True)), start


def _possible(counts: Floats) -> Floats:
    """No depth is reached by more than the one before."""
    at_risk = np.minimum.accumulate(np.maximum(counts[:, 0], 0.0), axis=-1)
    return np.stack([at_risk, np.clip(counts[:, 1], 0.0, at_risk)], axis=1)


def _clipped(counts: Floats, max_drafts: float) -> Floats:
    """Scaled to at most so many drafts by drafter and context."""
    num_drafts = counts[:, :1, :, :, :1]
    scaled: Floats = counts * np.minimum(1.0, max_drafts / np.maximum(num_drafts, 1e-9))
    return scaled
