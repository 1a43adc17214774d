"""Fits that outliers do not move: a linear one with weights >= 0, a smooth and a rising curve."""

from __future__ import annotations

import numpy as np

from policies.arms import Floats

DEVIATION = 1.4826  # standard deviations of a Gaussian are so many median ones
_HUBER = 1.5  # deviations beyond which a residual counts less
_NUM_REWEIGHTS = 10
_NUM_SWEEPS = 200
_WIDTH = 1.0  # of a neighbourhood to each side, as the logarithm of a ratio


def fit_linear(features: Floats, targets: Floats) -> Floats:
    """Weights >= 0 that fit features [num_rows, num_features] to targets, by Huber's criterion.

    Reweighted least squares (Huber, 1964), each by coordinate descent on the normal equations.
    """
    scale = np.maximum(np.abs(features).max(axis=0), 1e-12)
    scaled = features / scale
    row_weights = np.ones(len(targets))
    weights = np.zeros(features.shape[1])
    for _ in range(_NUM_REWEIGHTS):
        weights = _non_negative(scaled * row_weights[:, None], scaled, targets, weights)
        residuals = np.abs(targets - scaled @ weights)
        deviation = max(DEVIATION * float(np.median(residuals)), 1e-12)
        row_weights = np.minimum(1.0, _HUBER * deviation / np.maximum(residuals, 1e-300))
    return np.asarray(weights / scale)


def _non_negative(weighted: Floats, features: Floats, targets: Floats, start: Floats) -> Floats:
    gram, moments = weighted.T @ features, weighted.T @ targets
    weights = start.copy()
    for _ in range(_NUM_SWEEPS):
        before = weights.copy()
        for i in range(len(weights)):
            if gram[i, i] > 0:
                gradient = moments[i] - gram[i] @ weights
                weights[i] = max(0.0, weights[i] + gradient / gram[i, i])
        if np.abs(weights - before).max() <= 1e-9 * max(float(np.abs(weights).max()), 1e-300):
            break
    return weights


def smoothed(places: Floats, values: Floats, weights: Floats) -> Floats:
    """At each of places [num_places], all > 0 and different, the line through its neighbourhood.

    Local linear regression (Cleveland, 1979), its tricube weights by the ratio of the places. Two
    values give their line; one without neighbours stays.
    """
    ratios = np.abs(np.log(places)[:, None] - np.log(places))
    near = weights * (1 - np.minimum(ratios / _WIDTH, 1.0) ** 3) ** 3
    away = places - places[:, None]
    count, first, second = ((near * away**power).sum(axis=1) for power in range(3))
    mean, slant = (near * values).sum(axis=1), (near * away * values).sum(axis=1)
    spread = count * second - first**2
    is_line = spread > 1e-9 * count * second
    line = (second * mean - first * slant) / np.where(is_line, spread, 1.0)
    return np.asarray(np.where(is_line, line, mean / count))


def rising(values: Floats, weights: Floats) -> Floats:
    """The closest sequence that never falls, by pooling adjacent violators."""
    pools: list[tuple[float, float, int]] = []  # mean, weight, length
    for value, weight in zip(values.tolist(), weights.tolist(), strict=True):
        mean, total, length = value, weight, 1
        while pools and pools[-1][0] >= mean:
            earlier, its_weight, its_length = pools.pop()
            mean = (mean * total + earlier * its_weight) / (total + its_weight)
            total, length = total + its_weight, length + its_length
        pools.append((mean, total, length))
    return np.concatenate([np.full(length, mean) for mean, _, length in pools])
