"""What the suffix drafter takes from a tenant's outputs, and what it must not."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.drafters.drafter import Draft, DraftRequest, Outcome, ScoreRequest
from engine.drafters.suffix import SEPARATOR, SuffixDrafter, SuffixRule, TenantOutputs
from engine.request import SamplingParams

SAMPLING = SamplingParams()
PROMPT = [900]
ANSWER = [1, 2, 3, 4, 5, 6, 7, 8, 9]
SHORT_RULE = SuffixRule(1, 2, 4, 1.5)


def finish(
    drafter: SuffixDrafter, output: Sequence[int], tenant: str = "tenant", name: str = "finished"
) -> None:
    tokens = [*PROMPT, *output]
    drafter.score([ScoreRequest(name, tenant, tokens, len(PROMPT), SAMPLING, finished=True)])
    drafter.forget([name])


def draft(
    drafter: SuffixDrafter, tokens: Sequence[int], tenant: str = "tenant", name: str = "running"
) -> Draft:
    return drafter.draft([DraftRequest(name, tenant, tokens, 1, SAMPLING, 16)])[0]


def test_a_finished_output_is_offered_to_the_tenants_other_sequences() -> None:
    drafter = SuffixDrafter("suffix", 3)
    finish(drafter, ANSWER)
    assert draft(drafter, [50, 1, 2, 3, 4]) == Draft(5, (5, 6, 7), match_length=4)


def test_no_tenant_sees_anothers_output() -> None:
    drafter = SuffixDrafter("suffix", 16, rule=SuffixRule(1, 1))
    finish(drafter, ANSWER, tenant="other")
    for end in range(1, len(ANSWER) + 1):
        assert draft(drafter, ANSWER[:end]).tokens == ()
    assert draft(drafter, ANSWER[:4], tenant="other", name="theirs").tokens != ()


def test_a_prompt_is_not_shared() -> None:
    drafter = SuffixDrafter("suffix", 16)
    drafter.score([ScoreRequest("a", "tenant", ANSWER, len(ANSWER), SAMPLING, finished=True)])
    assert draft(drafter, ANSWER[:5]) == Draft(5)


def test_an_unfinished_or_forgotten_output_is_not_shared() -> None:
    drafter = SuffixDrafter("suffix", 16)
    drafter.score([ScoreRequest("a", "tenant", [*PROMPT, *ANSWER], 1, SAMPLING)])
    drafter.forget(["a"])
    assert draft(drafter, ANSWER[:5]) == Draft(5)


def test_an_output_that_is_finished_twice_is_shared_once() -> None:
    drafter = SuffixDrafter("suffix", 16, max_shared_tokens=20)
    finish(drafter, [6, 7, 8, 9, 10])
    request = ScoreRequest("a", "tenant", [*PROMPT, 1, 2, 3, 4, 5], 1, SAMPLING, finished=True)
    for _ in range(4):
        drafter.score([request])
    assert draft(drafter, [50, 6, 7, 8, 9]).tokens == (10,)  # not pushed out by copies


def test_drafts_grow_with_the_match() -> None:
    drafter = SuffixDrafter("suffix", 7, rule=SuffixRule(1, 1, 32, 1.5))
    finish(drafter, range(100))
    lengths = [len(draft(drafter, [900, *range(20, 20 + n)], name=str(n)).tokens) for n in range(8)]
    assert lengths == [0, 1, 3, 4, 6, 7, 7, 7]


def test_a_match_in_another_output_must_be_longer_than_one_in_the_sequence() -> None:
    drafter = SuffixDrafter("suffix", 16)
    finish(drafter, ANSWER)
    assert draft(drafter, [50, 2, 3, 4]) == Draft(4)
    assert draft(drafter, [3, 4, 60, 50, 3, 4], name="own").tokens == (60, 50, 3, 4)


def test_the_longer_match_of_the_two_sources_drafts() -> None:
    drafter = SuffixDrafter("suffix", 1)
    finish(drafter, ANSWER)
    assert draft(drafter, [4, 5, 60, 2, 3, 4, 5]).tokens == (6,)
    assert draft(drafter, [2, 3, 4, 5, 60, 2, 3, 4, 5], name="tie").tokens == (60,)


def test_the_most_recent_output_drafts() -> None:
    drafter = SuffixDrafter("suffix", 1)
    finish(drafter, [1, 2, 3, 4, 5])
    finish(drafter, [1, 2, 3, 4, 6])
    assert draft(drafter, [1, 2, 3, 4]).tokens == (6,)


def test_beyond_the_longest_match_only_recency_counts() -> None:
    drafter = SuffixDrafter("suffix", 1, rule=SuffixRule(max_match=4))
    finish(drafter, [9, 1, 2, 3, 4, 5])
    finish(drafter, [8, 1, 2, 3, 4, 6])
    assert draft(drafter, [9, 1, 2, 3, 4]) == Draft(5, (6,), match_length=4, streak=1)


def test_a_match_in_the_sequence_counts_up_to_the_longest_too() -> None:
    drafter = SuffixDrafter("suffix", 1, rule=SuffixRule(max_match=4))
    assert draft(drafter, [*ANSWER, *ANSWER[:7]]) == Draft(16, (8,), match_length=4, streak=5)


def test_nothing_is_offered_across_the_end_of_an_output() -> None:
    drafter = SuffixDrafter("suffix", 16)
    finish(drafter, [1, 2, 3, 4, 5])
    finish(drafter, [6, 7, 8, 9])
    assert draft(drafter, [1, 2, 3, 4]).tokens == (5,)
    assert draft(drafter, [2, 3, 4, 5], name="at the end") == Draft(4)


def test_an_output_that_finishes_meanwhile_is_matched_from_the_next_token_on() -> None:
    drafter = SuffixDrafter("suffix", 4)
    assert draft(drafter, [900, 1, 2, 3, 4]) == Draft(5)
    finish(drafter, ANSWER)
    assert draft(drafter, [900, 1, 2, 3, 4]) == Draft(5)
    assert draft(drafter, [900, 1, 2, 3, 4, 5]) == Draft(6, (6, 7, 8, 9), match_length=5)


def test_scores_do_not_see_outputs_that_finished_later() -> None:
    drafter = SuffixDrafter("suffix", 4)
    draft(drafter, [900, 1, 2, 3, 4])
    finish(drafter, ANSWER)
    request = ScoreRequest("running", "tenant", [900, 1, 2, 3, 4, 5], 4, SAMPLING)
    (outcomes,) = drafter.score([request])
    assert outcomes == [Outcome(base, 0, 0) for base in range(1, 6)]


def test_sequences_that_finish_together_do_not_see_each_other() -> None:
    drafter = SuffixDrafter("suffix", 4)
    tokens = [*PROMPT, *ANSWER]
    requests = [ScoreRequest(name, "tenant", tokens, 1, SAMPLING, True) for name in "ab"]
    first, second = drafter.score(requests)
    assert first == second == [Outcome(base, 0, 0) for base in range(1, len(tokens))]


@pytest.mark.parametrize("names", ["ab", "ba"])
def test_the_order_in_which_a_batch_finishes_changes_nothing(names: str) -> None:
    drafter = SuffixDrafter("suffix", 1)
    outputs = {"a": [1, 2, 3, 4, 5], "b": [1, 2, 3, 4, 6]}
    drafter.score(
        [ScoreRequest(name, "tenant", [900, *outputs[name]], 1, SAMPLING, True) for name in names]
    )
    assert draft(drafter, [1, 2, 3, 4]).tokens == (6,)


@pytest.mark.parametrize("rule", [SuffixRule(), SHORT_RULE])
@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data())
def test_outcomes_are_those_of_the_outputs_known_when_each_position_was_reached(
    rule: SuffixRule, data: st.DataObject
) -> None:
    """Against a fresh drafter that is given exactly those outputs, in their order."""
    motifs = data.draw(st.lists(st.lists(st.integers(0, 3), min_size=2, max_size=8), min_size=2))
    text = [t for i in data.draw(st.lists(st.sampled_from(motifs), max_size=6)) for t in i] + [0, 1]
    limit = data.draw(st.sampled_from([0, 24, 1000]))
    drafter = SuffixDrafter("suffix", 5, limit, rule=rule)
    outputs: list[list[int]] = []
    outcomes: list[Outcome] = []
    expected: list[Draft] = []
    known = 0
    while known < len(text):
        step = min(len(text), known + data.draw(st.integers(1, 5)))
        for end in range(max(1, known + 1), step + 1):
            fresh = SuffixDrafter("suffix", 5, limit, rule=rule)
            for output in outputs:
                finish(fresh, output)
            expected.append(draft(fresh, text[:end]))
        known = step
        request = ScoreRequest("running", "tenant", text[:known], 1, SAMPLING, known == len(text))
        outcomes += drafter.score([request])[0]
        if data.draw(st.booleans()):
            outputs.append(data.draw(st.sampled_from(motifs)) + data.draw(st.sampled_from(motifs)))
            finish(drafter, outputs[-1])
    by_position = {outcome.base_length: outcome for outcome in outcomes}
    assert sorted(by_position) == list(range(1, len(text)))
    for offer in expected[:-1]:
        outcome = by_position[offer.base_length]
        assert outcome.num_offered == len(offer.tokens)
        accepted = offer.tokens[: outcome.accept_length]
        truth = text[offer.base_length :]
        assert accepted == tuple(truth[: outcome.accept_length])
        following = slice(outcome.accept_length, outcome.accept_length + 1)
        refused = offer.tokens[following] != tuple(truth[following])
        assert refused or outcome.accept_length == len(offer.tokens)
        assert outcome.censored == (refused and len(truth) == outcome.accept_length)


def test_a_tenants_outputs_stay_within_their_bound_and_the_newest_stay() -> None:
    outputs = TenantOutputs(100)
    for version in range(1, 60):
        outputs.add([version] * 9, version)
        assert outputs.num_tokens <= 100
        assert outputs.version == version
    kept = {token for generation in outputs.generations for token in generation.tokens}
    assert kept >= {SEPARATOR, 55, 56, 57, 58, 59}
    assert 40 not in kept


def test_of_an_output_beyond_the_bound_the_end_is_kept() -> None:
    outputs = TenantOutputs(20)
    outputs.add(range(100), 1)
    assert outputs.generations[0].tokens == [*range(91, 100), SEPARATOR]


def test_the_longest_idle_tenant_is_dropped() -> None:
    drafter = SuffixDrafter("suffix", 4, max_tenants=2)
    for tenant in ("first", "second"):
        finish(drafter, ANSWER, tenant)
    draft(drafter, [1], tenant="first", name="keeps first in use")
    finish(drafter, ANSWER, "third")
    offers = {
        tenant: bool(draft(drafter, ANSWER[:4], tenant, f"{tenant}'s").tokens)
        for tenant in ("first", "second", "third")
    }
    assert offers == {"first": True, "second": False, "third": True}


def test_a_sequence_survives_the_loss_of_its_tenants_outputs() -> None:
    drafter = SuffixDrafter("suffix", 4, max_tenants=1)
    finish(drafter, ANSWER)
    assert draft(drafter, [900, 1, 2, 3, 4]).tokens == (5, 6, 7, 8)
    finish(drafter, ANSWER, "other")
    assert draft(drafter, [900, 1, 2, 3, 4, 5]) == Draft(6, streak=1)
    request = ScoreRequest("running", "tenant", [900, 1, 2, 3, 4, 5, 6, 7, 8], 1, SAMPLING)
    assert Outcome(5, 4, 4) in drafter.score([request])[0]


def test_few_offers_stay_open_however_rarely_scores_are_asked_for() -> None:
    drafter = SuffixDrafter("suffix", 8)
    tokens = [token for index in range(200) for token in (1, 2, 3, 4, index % 7)]
    for end in range(1, len(tokens) + 1, 3):
        drafter.draft([DraftRequest("a", "tenant", tokens[:end], 1, SAMPLING, 8)])
        assert len(drafter._sequences["a"].open_offers) <= 9
    request = ScoreRequest("a", "tenant", tokens, 1, SAMPLING, finished=True)
    assert [outcome.base_length for outcome in drafter.score([request])[0]] == list(range(1, 1000))
