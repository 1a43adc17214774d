"""The accept rule, by its definition."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from engine.verification import verify

TOKENS = st.lists(st.integers(0, 2), max_size=8)  # few ids, so that drafts are often right


class Target:
    """Says `tokens` whatever was drafted, and remembers what it was asked."""

    def __init__(self, tokens: list[int]) -> None:
        self.tokens = tokens
        self.asked: list[int] = []

    def token(self, index: int) -> int:
        self.asked.append(index)
        return self.tokens[index]


def verified(draft: list[int], truth: list[int]) -> tuple[list[int], list[int]]:
    target = Target([*truth, *[9] * (len(draft) + 1)])
    return verify(draft, target.token), target.asked


@given(draft=TOKENS, truth=TOKENS)
def test_emitted_tokens_are_the_targets_own_whatever_was_drafted(
    draft: list[int], truth: list[int]
) -> None:
    emitted, _ = verified(draft, truth)
    assert emitted == [*truth, *[9] * 9][: len(emitted)]


@given(draft=TOKENS, truth=TOKENS)
def test_the_longest_right_start_of_the_draft_is_accepted_and_one_token_follows(
    draft: list[int], truth: list[int]
) -> None:
    emitted, _ = verified(draft, truth)
    num_accepted = len(emitted) - 1
    assert emitted[:-1] == draft[:num_accepted]
    if num_accepted < len(draft):
        assert emitted[-1] != draft[num_accepted]


@given(draft=TOKENS, truth=TOKENS)
def test_the_target_is_asked_in_order_once_each_and_never_behind_a_rejection(
    draft: list[int], truth: list[int]
) -> None:
    emitted, asked = verified(draft, truth)
    assert asked == list(range(len(emitted)))


@given(truth=TOKENS)
def test_a_right_draft_is_accepted_whole_and_earns_a_bonus_token(truth: list[int]) -> None:
    assert verified(truth, [*truth, 7])[0] == [*truth, 7]


def test_no_draft_is_plain_decoding() -> None:
    assert verified([], [5]) == ([5], [0])


def test_a_right_token_behind_a_wrong_one_counts_for_nothing() -> None:
    assert verified([1, 0, 3], [1, 2, 3])[0] == [1, 2]
