"""The rule: the longest match among the lookups, else the other arm, else plain decoding."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from policies.rule import RuleSelector
from policies.selector import PLAIN, Context, Decision

LOOKUPS = ("prompt_lookup", "suffix")
OTHERWISE = Decision("model", 3)


def decide(draft_lengths: Mapping[str, int], match_lengths: Mapping[str, int]) -> Decision:
    selector = RuleSelector(LOOKUPS, draft_length=10, otherwise=OTHERWISE)
    (decision,) = selector.choose([Context("sequence", "tenant", draft_lengths, match_lengths)])
    return decision


def test_the_longest_match_drafts() -> None:
    offers = {"prompt_lookup": 8, "suffix": 6, "model": 5}
    assert decide(offers, {"prompt_lookup": 3, "suffix": 7}) == Decision("suffix", 6)
    assert decide(offers, {"prompt_lookup": 9, "suffix": 7}) == Decision("prompt_lookup", 8)


def test_the_first_lookup_wins_a_tie() -> None:
    assert decide({"suffix": 6, "prompt_lookup": 8}, {"suffix": 4, "prompt_lookup": 4}) == Decision(
        "prompt_lookup", 8
    )


def test_a_match_without_an_offer_does_not_count() -> None:
    offers = {"prompt_lookup": 0, "suffix": 2}
    assert decide(offers, {"prompt_lookup": 9, "suffix": 2}) == Decision("suffix", 2)
    assert decide({"suffix": 2}, {"prompt_lookup": 9, "suffix": 2}) == Decision("suffix", 2)


def test_an_offer_without_evidence_still_comes_before_the_other_arm() -> None:
    assert decide({"suffix": 2, "model": 5}, {}) == Decision("suffix", 2)


def test_a_lookup_drafts_at_most_the_draft_length() -> None:
    assert decide({"suffix": 16}, {"suffix": 30}) == Decision("suffix", 10)


def test_without_a_match_the_other_arm_drafts_what_it_can() -> None:
    assert decide({"model": 16}, {}) == Decision("model", 3)
    assert decide({"model": 2, "suffix": 0}, {"model": 50}) == Decision("model", 2)


def test_with_every_drafter_masked_decoding_is_plain() -> None:
    assert decide({}, {}) == PLAIN
    assert decide({"model": 0, "stranger": 9}, {"stranger": 9}) == PLAIN


def test_the_other_arm_is_plain_unless_it_is_given() -> None:
    contexts = [Context("sequence", "tenant", {"model": 5}, {})]
    assert RuleSelector(LOOKUPS, 10).choose(contexts) == [PLAIN]


def test_sequences_are_decided_apart_and_in_order() -> None:
    contexts = [
        Context("a", "tenant", {"model": 5}, {}),
        Context("b", "tenant", {"suffix": 5}, {"suffix": 2}),
    ]
    decisions = RuleSelector(LOOKUPS, 4, OTHERWISE).choose(contexts)
    assert decisions == [Decision("model", 3), Decision("suffix", 4)]


def test_a_draft_length_below_one_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="draft_length: 0"):
        RuleSelector(LOOKUPS, 0)
