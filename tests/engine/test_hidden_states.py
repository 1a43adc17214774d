"""A drafter that asks is given the target's own states of every verified token but the last."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import pytest
import torch
from tiny_models import run_all, target_states, tiny_engine, tiny_head_drafter
from tiny_requests import request

from engine.drafters.drafter import Draft, DraftRequest, Outcome, Past, ScoreRequest
from engine.hidden_states import HiddenStates
from policies.fixed import FixedSelector


class _Checking:
    """A free drafter that compares whatever past it is handed, and drafts what is often wrong."""

    name = "checking"
    is_free = True
    max_draft_length = 3

    def __init__(self) -> None:
        self.num_checked = 0

    def draft(self, requests: Sequence[DraftRequest]) -> list[Draft]:
        for asked in requests:
            self._check(asked.tokens, asked.past)
        return [Draft(len(asked.tokens), (5, 6, 7)[: asked.draft_length]) for asked in requests]

    def score(self, requests: Sequence[ScoreRequest]) -> list[list[Outcome]]:
        for asked in requests:
            self._check(asked.tokens, asked.past)
        return [[] for _ in requests]

    def forget(self, sequence_ids: Iterable[str]) -> None:
        pass

    def _check(self, tokens: Sequence[int], past: Past | None) -> None:
        assert past is not None
        assert past.num_known == len(tokens) - 1
        self.num_checked += 1
        if not past.num_known:
            return
        expected = target_states(tuple(tokens[:-1]))
        torch.testing.assert_close(past.read(0, past.num_known), expected, rtol=0, atol=0)
        middle = past.num_known // 2
        torch.testing.assert_close(past.read(middle, past.num_known), expected[middle:])


@pytest.mark.parametrize(("num_kv_tokens", "max_batch_tokens"), [(2048, 64), (120, 64), (2048, 16)])
def test_states_survive_rejected_drafts_preemption_chunks_and_shared_prefixes(
    num_kv_tokens: int, max_batch_tokens: int
) -> None:
    requests = [request(i, temperature) for i in range(4) for temperature in (0.0,)]
    requests += [request(10 + i, 0.9) for i in range(4)]
    checking = _Checking()
    engine = tiny_engine(
        [checking, tiny_head_drafter()],
        num_kv_tokens=num_kv_tokens,
        max_batch_tokens=max_batch_tokens,
        max_num_sequences=8,
    )
    engine.use_selectors(FixedSelector("checking", 3), {})
    for _ in range(2):  # the second time from the prefix cache
        run_all(engine, requests)
    counters = engine.counters()
    assert counters.num_drafter_failures["checking"] == 0, "every state was right"
    assert checking.num_checked > 100
    assert counters.num_cached_tokens > 0 or num_kv_tokens == 120
    assert counters.num_preemptions > 0 or num_kv_tokens != 120


def test_a_target_keeps_no_states_that_nobody_asked_for() -> None:
    pasts: list[Past | None] = []

    class Asking(_Checking):
        def _check(self, tokens: Sequence[int], past: Past | None) -> None:
            pasts.append(past)

    engine = tiny_engine([Asking()])
    engine.use_selectors(FixedSelector("checking", 3), {})
    run_all(engine, [request(1, 0.0)])
    assert set(pasts) == {None}


def test_reading_goes_through_the_block_table() -> None:
    states = HiddenStates(4, 2, 3, torch.zeros(1))
    rows = torch.arange(12.0).view(4, 3)
    states.write(torch.tensor([6, 7, 2, 3]), rows)  # blocks 3, then 1
    assert torch.equal(states.read([3, 1], 1, 4), rows[1:4])
    assert states.read([3, 1], 2, 2).shape == (0, 3)
