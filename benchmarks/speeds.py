"""What modes of decoding gave by repeat and prompt, by domain, and what could be had at best."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from benchmarks.workbench import PLAIN, Mode, Run
from policies.arms import Floats
from policies.cost_model import CostModel
from policies.selector import IDLE


@dataclass(slots=True)
class Speed:
    """Of one mode: the runs of each repeat, one a prompt; from a prompt's first token on."""

    repeats: list[list[Run]] = field(default_factory=list)

    def of(self, prompts: slice) -> Speed:
        """The part of some prompts."""
        return Speed([runs[prompts] for runs in self.repeats])

    @property
    def tokens_per_s(self) -> list[float]:
        """By repeat."""
        return [
            sum(run.num_decoded for run in runs) / sum(run.decode_s for run in runs)
            for runs in self.repeats
        ]

    @property
    def token_s(self) -> Floats:
        """Seconds of a token, [repeats, prompts]."""
        return np.array([[run.decode_s / run.num_decoded for run in runs] for runs in self.repeats])

    @property
    def acceptance_length(self) -> float:
        return self._per_round(lambda run: run.num_decoded)

    @property
    def mean_draft_length(self) -> float:
        return self._per_round(lambda run: run.num_draft_tokens)

    def _per_round(self, figure: Callable[[Run], int]) -> float:
        runs = [run for runs in self.repeats for run in runs]
        return sum(map(figure, runs)) / max(1, sum(run.num_rounds for run in runs))


Speeds = Mapping[str, Speed]


@dataclass(frozen=True, slots=True)
class DomainSpeed:
    """Times plain decoding: of a mode, of the best fixed arm, and of what one arm could come to.

    `bound` is the most of any fixed arm: its acceptance length times a plain step's seconds over
    those of verifying and drafting as much as it did, by the measured costs: nothing is lost
    between the steps then.
    """

    domain: str
    speed_up: float
    acceptance_length: float
    best_arm: str
    best_speed_up: float
    bound: float


def by_domain(
    speeds: Speeds, chosen: str, fixed: Sequence[Mode], domains: Sequence[str], costs: CostModel
) -> list[DomainSpeed]:
    """Prompts are of the `domains` in turns."""
    found = []
    for i, domain in enumerate(domains):
        part = {name: speed.of(slice(i, None, len(domains))) for name, speed in speeds.items()}
        plain = statistics.median(part[PLAIN.name].tokens_per_s)
        gains = {m.name: statistics.median(part[m.name].tokens_per_s) / plain for m in fixed}
        best = max(fixed, key=lambda mode: gains[mode.name])
        bound = max(1.0, *(_bound(part[mode.name], mode, costs) for mode in fixed))
        gain = statistics.median(part[chosen].tokens_per_s) / plain
        length = part[chosen].acceptance_length
        found.append(DomainSpeed(domain, gain, length, best.name, gains[best.name], bound))
    return found


def _bound(speed: Speed, mode: Mode, costs: CostModel) -> float:
    lengths = np.array([speed.mean_draft_length])
    plain_s = costs.plain_seconds(IDLE)
    drafting_s = costs.draft_seconds(mode.drafters[0], lengths, 1)
    round_s = plain_s + float((costs.added_seconds(lengths, IDLE) + drafting_s)[0])
    return speed.acceptance_length * plain_s / round_s
