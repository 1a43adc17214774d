"""Rules against arms with known accept lengths, many runs at once: stopping-time regret.

An arm's tokens are accepted independently with its probability, so that a draft of L emits
(1 - p^(L+1)) / (1 - p) on average, the bonus included (truncated geometric).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from policies.arms import Floats, Ints
from policies.learning import Plays, Rule


class Environment(Protocol):
    """What each arm's token is accepted with after so many tokens."""

    @property
    def draft_length(self) -> int: ...

    @property
    def num_arms(self) -> int: ...

    def accept_rates(self, num_tokens: Ints) -> Floats:
        """By run and arm."""
        ...


@dataclass(frozen=True, slots=True)
class Switching:
    """Accept rates that change for good at some numbers of tokens; by default they never do."""

    rates: Sequence[Sequence[float]]
    switch_at: Sequence[int] = ()
    draft_length: int = 4

    @property
    def num_arms(self) -> int:
        return len(self.rates[0])

    def accept_rates(self, num_tokens: Ints) -> Floats:
        part = np.searchsorted(self.switch_at, num_tokens, side="right")
        return np.asarray(np.array(self.rates)[part], np.float64)


@dataclass(frozen=True, slots=True)
class Drifting:
    """Accept rates that move evenly from `first` to `last` over `num_tokens`."""

    first: Sequence[float]
    last: Sequence[float]
    num_tokens: int
    draft_length: int = 4

    @property
    def num_arms(self) -> int:
        return len(self.first)

    def accept_rates(self, num_tokens: Ints) -> Floats:
        share = np.minimum(num_tokens / self.num_tokens, 1.0)[:, None]
        return np.asarray(np.array(self.first) * (1 - share) + np.array(self.last) * share)


def mean_emitted(accept_rates: Floats | float, draft_length: int) -> Floats:
    """Tokens that a round emits on average."""
    rates = np.asarray(accept_rates, np.float64)
    return np.asarray((rates[..., None] ** np.arange(draft_length + 1)).sum(axis=-1))


@dataclass(frozen=True, slots=True)
class Runs:
    """Rounds until each mark of tokens was passed, and losses over rounds of every arm.

    `regret` is in rounds of the best arm at each time: what the chosen arms fell short of it on
    average, free of the luck of the draw.
    """

    rounds: Ints  # [num_marks, num_runs]
    regret: Floats  # [num_marks, num_runs]
    losses: Floats  # of the rule itself [num_runs]
    arm_losses: Floats  # of each arm on the same rounds [num_runs, num_arms]


def simulate(
    rule: Rule,
    environment: Environment,
    marks: Sequence[int],
    num_runs: int,
    generator: np.random.Generator,
    delay: int = 0,
) -> Runs:
    """Decodes until every run has passed the last mark; feedback comes `delay` rounds late."""
    length, num_arms = environment.draft_length, environment.num_arms
    sums = np.zeros((num_runs, len(rule.sums), num_arms))
    allowed = np.ones((num_runs, num_arms), np.bool_)
    num_tokens, at = np.zeros(num_runs, np.int64), np.arange(num_runs)
    rounds = np.zeros((len(marks), num_runs), np.int64)
    regret = np.zeros((len(marks), num_runs))
    losses, arm_losses = np.zeros(num_runs), np.zeros((num_runs, num_arms))
    waiting: deque[Plays] = deque()
    while num_tokens.min() < marks[-1]:
        weights = rule.probabilities(sums, allowed, np.zeros(num_runs, np.int64))
        ladder = np.cumsum(weights, axis=1)
        level = generator.random((num_runs, 1)) * ladder[:, -1:]
        chosen = (ladder > level).argmax(axis=1)
        sums[at, 0, chosen] += 1
        rates = environment.accept_rates(num_tokens)
        emitted = _emitted(rates, length, generator)
        loss = (length + 1 - emitted) / (length + rule.sees_all)
        waiting.append(Plays(chosen, weights, loss))
        is_before = num_tokens < np.array(marks)[:, None]
        rounds += is_before
        means = mean_emitted(rates, length)
        regret += is_before * (1 - means[at, chosen] / means.max(axis=1))
        is_running = is_before[-1]
        losses += is_running * loss[at, chosen]
        arm_losses += is_running[:, None] * loss
        num_tokens += emitted[at, chosen]
        if len(waiting) > delay:
            sums += rule.increments(waiting.popleft())
    return Runs(rounds, regret, losses, arm_losses)


def _emitted(accept_rates: Floats, draft_length: int, generator: np.random.Generator) -> Ints:
    """Of every arm, had it been chosen; the luck is the same for all arms."""
    luck = generator.random((len(accept_rates), 1, draft_length))
    accepted = np.cumprod(luck < accept_rates[:, :, None], axis=2).sum(axis=2)
    return np.asarray(accepted + 1, np.int64)
