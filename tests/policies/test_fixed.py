"""The fixed selector keeps to its arm, and to what the context allows."""

from __future__ import annotations

import pytest

from policies.fixed import FixedSelector
from policies.selector import PLAIN, Context, Decision


def context(**draft_lengths: int) -> Context:
    return Context("sequence", "tenant", draft_lengths, {})


def test_the_arm_is_chosen_whatever_else_is_on_offer() -> None:
    contexts = [context(suffix=16, model=8), context(model=8)]
    assert FixedSelector("model", 4).choose(contexts) == [Decision("model", 4)] * 2


def test_a_shorter_offer_is_taken_as_it_is() -> None:
    assert FixedSelector("suffix", 8).choose([context(suffix=3)]) == [Decision("suffix", 3)]


def test_a_masked_drafter_means_plain_decoding_for_that_sequence_only() -> None:
    contexts = [context(model=8), context(suffix=2), context(suffix=0)]
    assert FixedSelector("suffix", 8).choose(contexts) == [PLAIN, Decision("suffix", 2), PLAIN]


@pytest.mark.parametrize("selector", [FixedSelector(), FixedSelector(None, 5)])
def test_no_drafter_is_plain_decoding(selector: FixedSelector) -> None:
    assert selector.choose([context(suffix=16)]) == [PLAIN]


def test_a_draft_length_of_nought_is_plain_decoding() -> None:
    assert FixedSelector("suffix", 0).choose([context(suffix=16)]) == [PLAIN]


def test_a_negative_draft_length_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="draft_length: -1"):
        FixedSelector("suffix", -1)


def test_no_contexts_give_no_decisions() -> None:
    assert FixedSelector("suffix", 4).choose([]) == []
