"""What each tenant holds of a thing that runs out, and who holds more than its share of it.

A share is the whole, divided among the tenants that want any of it by their weights.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from engine.sequence import Sequence

Holdings = Mapping[str, int]


def blocks_held(sequences: Iterable[Sequence]) -> dict[str, set[int]]:
    """KV blocks by tenant; a block that sequences of a tenant share is one."""
    held: dict[str, set[int]] = defaultdict(set)
    for sequence in sequences:
        held[sequence.request.tenant].update(sequence.block_table)
    return held


def places_held(sequences: Iterable[Sequence]) -> dict[str, int]:
    """Running sequences by tenant."""
    held: dict[str, int] = defaultdict(int)
    for sequence in sequences:
        held[sequence.request.tenant] += 1
    return held


def share_of(tenant: str, weights: Mapping[str, float], whole: int) -> float:
    return whole * weights[tenant] / sum(weights.values())


def most_over_share(held: Holdings, weights: Mapping[str, float]) -> str:
    """The tenant that holds most for its weight."""
    return max(held, key=lambda tenant: (held[tenant] / weights[tenant], tenant))


def over_share(
    held: Holdings, weights: Mapping[str, float], whole: int, least_excess: int = 0
) -> str | None:
    """The tenant that holds most for its weight, if that is more than its share.

    And at least `least_excess` more, so that taking as much leaves it no less than its share.
    """
    if not held:
        return None
    tenant = most_over_share(held, weights)
    excess = held[tenant] - share_of(tenant, weights, whole)
    return tenant if excess > 0 and excess >= least_excess else None


def divide(whole: int, wanted: Holdings, weights: Mapping[str, float]) -> dict[str, int]:
    """By weight, but nobody gets more than is wanted, and what one leaves is for the others."""
    given: dict[str, int] = {}
    left = set(wanted)
    for tenant in sorted(wanted, key=lambda name: (wanted[name] / weights[name], name)):
        share = whole * weights[tenant] / sum(weights[name] for name in left)
        given[tenant] = min(wanted[tenant], round(share))
        whole -= given[tenant]
        left.remove(tenant)
    return given
