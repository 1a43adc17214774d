"""How long a round waits for drafts that are on their way, while other sequences could go on.

Going on without them means another step for them later; waiting means one larger step. A step of
few tokens costs nearly as much as one of more, so that waiting saves time, up to a point.
"""

from __future__ import annotations

from dataclasses import replace

from policies.cost_model import CostModel
from policies.selector import Load

_NEW_SHARE = 0.2  # of a measured time in what is expected
_LATE = 2.0  # times what has passed without an answer is expected from then on
_FORGOTTEN = 0.98  # of what is expected, whenever that is too long to wait: it is tried again


class Patience:
    """Learns how long each drafter takes to answer, from answers that were seen to come."""

    def __init__(self) -> None:
        self._expected_s: dict[str, float] = {}

    def wait_s(self, drafter: str, saved_s: float) -> float:
        """How long after the question an answer is worth waiting for: as long as waiting saves
        time, or not at all where the drafter as a rule takes longer."""
        expected_s = self._expected_s.get(drafter, 0.0)
        if expected_s <= saved_s:
            return saved_s
        self._expected_s[drafter] = _FORGOTTEN * expected_s
        return 0.0

    def came(self, drafter: str, seconds: float) -> None:
        """An answer was waited for and came."""
        expected_s = self._expected_s.setdefault(drafter, seconds)
        self._expected_s[drafter] += _NEW_SHARE * (seconds - expected_s)

    def was_there(self, drafter: str, seconds: float) -> None:
        """An answer was found that may have come at any time until now."""
        self._expected_s[drafter] = min(self._expected_s.get(drafter, seconds), seconds)

    def is_late(self, drafter: str, seconds: float) -> None:
        """So long after the question no answer has come."""
        before_s = self._expected_s.get(drafter, 0.0)
        self._expected_s[drafter] = max(before_s, _LATE * seconds)


def saved_seconds(costs: CostModel, one: Load, other: Load) -> float:
    """What one step for both saves against a step for each; nothing until a step was measured."""
    both = Load(
        one.num_sequences + other.num_sequences,
        one.num_tokens + other.num_tokens,
        one.num_kv_entries + other.num_kv_entries,
    )
    apart_s = _step_seconds(costs, one) + _step_seconds(costs, other)
    return max(0.0, apart_s - _step_seconds(costs, both))


def _step_seconds(costs: CostModel, load: Load) -> float:
    return costs.step_seconds(replace(load, num_sequences=max(load.num_sequences, 1)))
