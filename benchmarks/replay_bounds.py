"""What needs no learning: fixed arms, the rule, hindsight's best arm of each request, foresight."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.replay_traces import Trace
from policies.arms import Arms, Floats, Ints


@dataclass(frozen=True, slots=True)
class Choices:
    """Every arm at every position of a request: length as far as offered, and tokens emitted."""

    lengths: Ints  # [num_tokens, num_arms]
    steps: Ints  # [num_tokens, num_arms]

    @staticmethod
    def of(trace: Trace, arms: Arms) -> Choices:
        nothing = np.zeros(trace.num_tokens, np.int64)
        offers = np.stack([trace.offered.get(n or "", nothing) for n in arms.names], axis=1)
        accepted = np.stack([trace.accepted.get(n or "", nothing) for n in arms.names], axis=1)
        lengths, _ = arms.cut(offers)
        left = trace.num_tokens - np.arange(trace.num_tokens)
        emitted = np.minimum(accepted[:, arms.drafters], lengths) + 1
        return Choices(lengths, np.minimum(emitted, left[:, None]))


@dataclass(frozen=True, slots=True)
class Tally:
    """How often each (drafter, length) ran, and the tokens that came of it: free of any price."""

    rounds: Ints  # [1 + num_drafters, 1 + max_length]
    num_tokens: int

    def seconds(self, prices: Floats) -> float:
        return float((self.rounds * prices).sum())

    def __add__(self, other: Tally) -> Tally:
        return Tally(self.rounds + other.rounds, self.num_tokens + other.num_tokens)


def walk(choices: Choices, arms: Arms, arm_at: Ints) -> Tally:
    """Follows the arm `arm_at[j]` at each position j that a round starts from."""
    at = np.arange(len(arm_at))
    steps = choices.steps[at, arm_at].tolist()
    places = (arms.drafters[arm_at] * (arms.max_length + 1) + choices.lengths[at, arm_at]).tolist()
    rounds = [0] * (len(arms.names) * (arms.max_length + 1))
    j = 0
    while j < len(steps):
        rounds[places[j]] += 1
        j += steps[j]
    return Tally(np.array(rounds).reshape(len(arms.names), -1), len(steps))


class Bounds:
    """Tallies of every fixed arm and every rule over some requests, priced later."""

    def __init__(self, traces: Sequence[Trace], arms: Arms) -> None:
        self._arms = arms
        self._choices = [Choices.of(trace, arms) for trace in traces]
        self._fixed = [
            [walk(c, arms, np.full(len(c.steps), arm)) for arm in range(len(arms))]
            for c in self._choices
        ]
        lookups, models = traces[0].lookups, traces[0].models
        lengths = {int(k) for n in lookups for k in arms.lengths[arms.drafters == arms.index[n]]}
        others = [0, *(a for a, (name, _) in enumerate(arms.keys) if name in models)]
        self._rules = {
            (length, other): self._rule(traces, length, other)
            for length in sorted(lengths) or [0]
            for other in others
        }

    def _rule(self, traces: Sequence[Trace], length: int, otherwise: int) -> Tally:
        places = {key: arm for arm, key in enumerate(self._arms.keys)}
        tallies = []
        for trace, choices in zip(traces, self._choices, strict=True):
            arm_at, longest = np.full(trace.num_tokens, otherwise), np.zeros(trace.num_tokens)
            for name in trace.lookups:
                is_longer = (trace.offered[name] > 0) & (trace.matches[name] > longest)
                longest = np.where(is_longer, trace.matches[name], longest)
                arm_at = np.where(is_longer, places[name, length], arm_at)
            tallies.append(walk(choices, self._arms, arm_at))
        return sum(tallies[1:], tallies[0])

    def fixed(self, prices: Floats) -> dict[tuple[str, int], float]:
        """Tokens per second of each arm."""
        totals = [sum(column[1:], column[0]) for column in zip(*self._fixed, strict=True)]
        return {
            key: total.num_tokens / total.seconds(prices)
            for key, total in zip(self._arms.keys, totals, strict=True)
        }

    def rules(self, prices: Floats) -> dict[tuple[int, int], float]:
        """Tokens per second of "the longest match, else this arm", by draft length and arm."""
        return {
            arms: tally.num_tokens / tally.seconds(prices) for arms, tally in self._rules.items()
        }

    def hindsight(self, prices: Floats) -> float:
        """Tokens per second with the best fixed arm of each request.

        An arm costs what it drafts: plain decoding's seconds where its drafter offers nothing.
        """
        best = [min(tally.seconds(prices) for tally in row) for row in self._fixed]
        return sum(row[0].num_tokens for row in self._fixed) / sum(best)

    def hindsight_whole(self, prices: Floats) -> float:
        """The same where an arm is charged its whole length at every round, offered or not."""
        costs: list[float] = prices[self._arms.drafters, self._arms.lengths].tolist()
        best = [
            min(float(t.rounds.sum()) * cost for t, cost in zip(row, costs, strict=True))
            for row in self._fixed
        ]
        return sum(row[0].num_tokens for row in self._fixed) / sum(best)

    def clairvoyant(self, prices: Floats) -> float:
        """Tokens per second with the best arms that foresight can find, by dynamic programme."""
        seconds = sum(self._least_seconds(choices, prices) for choices in self._choices)
        return sum(len(choices.steps) for choices in self._choices) / seconds

    def _least_seconds(self, choices: Choices, prices: Floats) -> float:
        costs = prices[self._arms.drafters, choices.lengths]
        left = np.zeros(len(costs) + 1)
        for j in range(len(costs) - 1, -1, -1):
            left[j] = (costs[j] + left[j + choices.steps[j]]).min()
        return float(left[0])
