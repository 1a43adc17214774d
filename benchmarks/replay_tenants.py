"""Several tenants in one replay, whose tables lean on one another as they do when served."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from benchmarks.replay_simulator import Setting
from cluster.config import RedisSection
from cluster.statistics.survival import Weights, weighed
from policies.arms import Floats
from policies.selector import Context, Decision, Outcome
from policies.survival import Survival, SurvivalSelector

WEIGHTS = Weights(RedisSection().tenant_weight, RedisSection().shared_weight)
STEPS_PER_EXCHANGE = 10

Arm = tuple[str | None, int]


class SharedTables:
    """Survival by tenant; keeps what one of them, `tenant`, chose and what became of it."""

    def __init__(self, setting: Setting, seed: int, tenant: str) -> None:
        generator = np.random.default_rng(seed)
        self._learner = SurvivalSelector(
            setting.arms, setting.prices, generator, Survival("tenant")
        )
        self._tenant = tenant
        self._prices = setting.prices.seconds(setting.load)
        self._index = setting.arms.index
        self._open: dict[int, str | None] = {}
        self._chosen: Counter[Arm] = Counter()
        self._num_tokens = 0
        self._seconds = 0.0
        self._counts: dict[str, Floats] = {}
        self._num_steps = 0

    @property
    def tokens_per_s(self) -> float:
        return self._num_tokens / self._seconds

    @property
    def shares(self) -> dict[Arm, float]:
        """Of the rounds."""
        return {arm: num / self._chosen.total() for arm, num in self._chosen.items()}

    def choose(self, contexts: Sequence[Context]) -> list[Decision]:
        decisions = self._learner.choose(contexts)
        for context, decision in zip(contexts, decisions, strict=True):
            if context.tenant == self._tenant:
                drafter, length = decision.drafter, decision.draft_length
                self._open[decision.id] = drafter
                self._chosen[drafter, length] += 1
                self._seconds += float(self._prices[self._index[drafter], length])
        return decisions

    def observe(self, outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            if self._open.get(outcome.decision_id, "") == outcome.drafter:
                del self._open[outcome.decision_id]
                self._num_tokens += outcome.accept_length + 1
        self._learner.observe(outcomes)
        self._num_steps += 1
        if self._num_steps % STEPS_PER_EXCHANGE == 0:
            self._exchange()

    def forget(self, sequence_ids: Iterable[str]) -> None:
        self._learner.forget(sequence_ids)

    def _exchange(self) -> None:
        for tenant, counts in self._learner.take().items():
            self._counts[tenant] = self._counts.get(tenant, np.zeros(counts.shape)) + counts
        if self._counts:
            shape = next(iter(self._counts.values())).shape
            self._learner.use(*weighed(self._counts, shape, WEIGHTS))
