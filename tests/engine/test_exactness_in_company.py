"""Speculative output equals plain output, whoever runs beside it, chooses, joins, leaves or lies.

Plain output is made one request at a time; everything else must reproduce it.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from plain_answers import all_drafters, assert_same, mixed_requests, plain_answer
from switching import Switching
from tiny_models import VOCAB, ids_of, run_all, tiny_engine
from tiny_requests import DRAFTERS, request

from engine.drafters.drafter import Draft, DraftRequest, Outcome, ScoreRequest
from engine.request import Emission, SpeculationOptions
from policies.arms import Arms
from policies.cost_model import ArmPrices
from policies.exp3spec import Exp3Spec
from policies.fixed import FixedSelector
from policies.hedge import Hedge
from policies.learning import Learning, LearningSelector, Loss
from policies.normalhedge import NormalHedge
from policies.rule import RuleSelector
from policies.selector import Decision, Learner
from policies.survival import SurvivalSelector
from policies.ucbspec import UcbSpec

LEARNERS: dict[str, Callable[[], Any]] = {
    "survival": lambda: None,
    "ucbspec": UcbSpec,
    "exp3spec": Exp3Spec,
    "hedge": Hedge,
    "normalhedge": NormalHedge,
}


def test_drafters_switched_in_mid_sequence_change_nothing() -> None:
    requests = mixed_requests(24)
    engine = tiny_engine(all_drafters())
    engine.use_selectors(Switching(DRAFTERS), {})
    emissions = run_all(engine, requests)
    for asked in requests:
        assert_same(emissions[asked.sequence_id], asked, "llama")
    assert set(engine.counters().per_drafter) == set(DRAFTERS)


@pytest.mark.parametrize("num_kv_tokens", [88, 120, 200])
def test_preemption_changes_nothing(num_kv_tokens: int) -> None:
    requests = mixed_requests(24)
    engine = tiny_engine(
        all_drafters(num_blocks=30), num_kv_tokens=num_kv_tokens, max_num_sequences=8
    )
    engine.use_selectors(Switching(DRAFTERS), {})
    emissions = run_all(engine, requests)
    for asked in requests:
        assert_same(emissions[asked.sequence_id], asked, "llama")
    assert engine.counters().num_preemptions > 0


@pytest.mark.parametrize("loss", ["tokens", "seconds"])
@pytest.mark.parametrize("name", LEARNERS)
def test_every_learner_says_what_plain_decoding_says(name: str, loss: Loss) -> None:
    requests = mixed_requests(16, first=1000)
    engine = tiny_engine(all_drafters(), num_kv_tokens=100, max_num_sequences=8)
    arms = Arms(dict.fromkeys(DRAFTERS, (1, 2, 4, 8)))
    prices, generator = ArmPrices(engine.costs, arms), np.random.default_rng(0)
    learner: Learner = SurvivalSelector(arms, prices, generator)
    if name != "survival":
        rule, learning = LEARNERS[name](), Learning(loss, "tenant")
        learner = LearningSelector(arms, rule, prices, generator, learning)
    engine.use_selectors(learner, {})
    emissions = run_all(engine, requests)
    for asked in requests:
        assert_same(emissions[asked.sequence_id], asked, "llama")
    assert engine.counters().num_preemptions > 0
    assert sum(use.num_draft_tokens for use in engine.counters().per_drafter.values()) > 0


def test_prefix_cache_hits_change_nothing() -> None:
    requests = mixed_requests(16)
    engine = tiny_engine(all_drafters())
    engine.use_selectors(Switching(DRAFTERS), {})
    for _ in range(3):
        emissions = run_all(engine, requests)
        for asked in requests:
            assert_same(emissions[asked.sequence_id], asked, "llama")
    assert engine.counters().num_cached_tokens > 200


@pytest.mark.parametrize("max_batch_tokens", [16, 17, 48])
def test_chunked_prefill_and_batch_width_change_nothing(max_batch_tokens: int) -> None:
    requests = mixed_requests(16, first=600)
    engine = tiny_engine(all_drafters(), max_batch_tokens=max_batch_tokens)
    engine.use_selectors(Switching(DRAFTERS), {})
    emissions = run_all(engine, requests)
    for asked in requests:
        assert_same(emissions[asked.sequence_id], asked, "llama")


def test_a_request_that_narrows_its_drafters_gets_only_those() -> None:
    narrow = SpeculationOptions(drafters=("suffix",), max_draft_length=2)
    requests = [request(700 + i, 0.0, speculation=narrow) for i in range(4)]
    engine = tiny_engine(all_drafters())
    engine.use_selectors(RuleSelector(("prompt_lookup", "suffix"), 16, Decision("model", 4)), {})
    emissions = run_all(engine, requests)
    for asked in requests:
        use = emissions[asked.sequence_id][-1].use
        assert set(use.per_drafter) <= {"suffix"}
        assert use.num_draft_tokens <= 2 * use.num_rounds
        assert ids_of(emissions[asked.sequence_id]) == ids_of(plain_answer(request(
            int(asked.sequence_id), 0.0)))  # fmt: skip


def test_a_request_that_joins_or_leaves_changes_no_other() -> None:
    requests = mixed_requests(12, first=800)
    engine = tiny_engine(all_drafters())
    engine.use_selectors(Switching(DRAFTERS), {})
    rng = random.Random(1)
    cancelled = {asked.sequence_id for asked in rng.sample(requests, 4)}
    emissions: dict[str, list[Emission]] = {asked.sequence_id: [] for asked in requests}
    waiting = list(requests)
    while waiting or engine.has_work:
        if waiting:
            engine.submit(waiting.pop())
        if cancelled and rng.random() < 0.3:
            engine.cancel(rng.choice(sorted(cancelled)))
        for emission in engine.step():
            emissions[emission.sequence_id].append(emission)
        engine.check_integrity()
    for asked in requests:
        got = ids_of(emissions[asked.sequence_id])
        expected = ids_of(plain_answer(asked))
        if asked.sequence_id in cancelled:
            assert got == expected[: len(got)]
        else:
            assert got == expected


class _Byzantine:
    """Lies in every way there is, and sometimes raises."""

    name = "byzantine"
    max_draft_length = 16

    def __init__(self, is_free: bool) -> None:
        self.is_free = is_free
        self._rng = random.Random(3)
        self._stale: dict[str, Draft] = {}

    def draft(self, requests: Sequence[DraftRequest]) -> list[Draft]:
        if self._rng.random() < 0.1:
            raise RuntimeError("a drafter that breaks")
        drafts = [self._one(asked) for asked in requests]
        return drafts[:-1] if self._rng.random() < 0.1 else drafts

    def _one(self, asked: DraftRequest) -> Draft:
        kind = self._rng.randrange(6)
        base, length = len(asked.tokens), asked.draft_length
        high = VOCAB if kind < 3 else 10 * VOCAB
        tokens = [self._rng.randrange(-3 if kind == 4 else 0, high) for _ in range(length)]
        if kind == 5:
            tokens *= 3
        draft = Draft(base if kind != 2 else base - 1, tuple(tokens))
        late, self._stale[asked.sequence_id] = self._stale.get(asked.sequence_id, draft), draft
        return late if self._rng.random() < 0.2 else draft

    def score(self, requests: Sequence[ScoreRequest]) -> list[list[Outcome]]:
        raise RuntimeError("a drafter that breaks")

    def forget(self, sequence_ids: object) -> None:
        raise RuntimeError("a drafter that breaks")


@pytest.mark.parametrize("is_free", [True, False])
def test_a_byzantine_drafter_changes_no_token(is_free: bool) -> None:
    requests = mixed_requests(20, first=900)
    engine = tiny_engine([_Byzantine(is_free)])
    engine.use_selectors(FixedSelector("byzantine", 16), {})
    emissions = run_all(engine, requests)
    for asked in requests:
        assert_same(emissions[asked.sequence_id], asked, "llama")
    assert engine.counters().num_drafter_failures["byzantine"] > 0
