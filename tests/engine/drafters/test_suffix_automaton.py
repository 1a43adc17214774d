"""The automaton against a search of the text itself."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.drafters.suffix_automaton import ROOT, SuffixAutomaton

TEXTS = st.lists(st.integers(0, 2), max_size=40)
checked = settings(max_examples=200, deadline=None, derandomize=True)


def ends(text: Sequence[int], part: Sequence[int]) -> list[int]:
    """Where `part` ends in `text`, ascending."""
    size = len(part)
    return [end for end in range(size, len(text) + 1) if text[end - size : end] == part]


@checked
@given(text=TEXTS)
def test_append_finds_the_longest_earlier_suffix_and_its_latest_end(text: list[int]) -> None:
    automaton = SuffixAutomaton()
    for end in range(1, len(text) + 1):
        known = text[:end]
        found_end, length = automaton.append(known[-1])
        earlier = ends(known, known[end - length :])[:-1]
        assert length == 0 or found_end == earlier[-1]
        longer = known[end - length - 1 :] if length < end else []
        assert not longer or ends(known, longer) == [end]


@checked
@given(text=TEXTS, follower=TEXTS)
def test_step_follows_the_longest_suffix_that_occurs(text: list[int], follower: list[int]) -> None:
    automaton = SuffixAutomaton()
    for token in text:
        automaton.append(token)
    state, length = ROOT, 0
    for end in range(1, len(follower) + 1):
        state, length = automaton.step(state, length, follower[end - 1])
        lengths = [size for size in range(end + 1) if ends(text, follower[end - size : end])]
        assert length == max(lengths, default=0)
        if length:
            assert automaton.latest_end(state) in ends(text, follower[end - length : end])


@checked
@given(text=TEXTS, follower=TEXTS, max_match=st.integers(1, 6))
def test_shorten_leads_to_the_state_of_the_shorter_suffix(
    text: list[int], follower: list[int], max_match: int
) -> None:
    automaton = SuffixAutomaton()
    for token in text:
        automaton.append(token)
    state, length = ROOT, 0
    for end in range(1, len(follower) + 1):
        state, length = automaton.step(state, length, follower[end - 1])
        length = min(length, max_match)
        state = automaton.shorten(state, length)
        afresh = (ROOT, 0)
        for token in follower[end - length : end]:
            afresh = automaton.step(*afresh, token)
        assert afresh == (state, length)


def test_it_has_at_most_two_states_per_token() -> None:
    for text in ([0] * 300, [0, 1] * 150, [1] + [0] * 298 + [1], list(range(300))):
        automaton = SuffixAutomaton()
        for token in text:
            automaton.append(token)
        assert automaton.num_states <= 2 * len(text)
        assert len(automaton) == len(text)


def test_a_text_of_one_token_does_not_cost_its_square() -> None:
    automaton = SuffixAutomaton()
    found = [automaton.append(0) for _ in range(100_000)]  # minutes if every state were updated
    assert found[-1] == (99_999, 99_999)
