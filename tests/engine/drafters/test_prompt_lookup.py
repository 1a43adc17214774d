"""Which earlier place prompt lookup drafts from, and how much it remembers."""

from __future__ import annotations

import tracemalloc
from collections.abc import Sequence

import pytest

from engine.drafters.drafter import Draft, DraftRequest, ScoreRequest
from engine.drafters.prompt_lookup import MAX_CANDIDATES, PromptLookupDrafter, _Sequence
from engine.request import SamplingParams

SAMPLING = SamplingParams()


def draft(tokens: Sequence[int], max_match: int = 16, min_match: int = 3, length: int = 4) -> Draft:
    drafter = PromptLookupDrafter("lookup", 8, max_match, min_match)
    request = DraftRequest("a", "tenant", tokens, len(tokens), SAMPLING, length)
    return drafter.draft([request])[0]


def test_it_offers_what_followed_the_last_tokens() -> None:
    assert draft([1, 2, 3, 4, 5, 6, 7, 1, 2, 3]) == Draft(10, (4, 5, 6, 7), match_length=3)


def test_a_match_shorter_than_the_shortest_is_no_offer() -> None:
    assert draft([1, 2, 3, 4, 9, 2, 3]) == Draft(7)
    assert draft([1, 2, 3, 4, 9, 2, 3], min_match=2) == Draft(7, (4, 9, 2, 3), match_length=2)


def test_a_sequence_shorter_than_a_match_is_no_offer() -> None:
    assert draft([1, 1]) == Draft(2)


def test_the_longest_match_wins_over_a_more_recent_one() -> None:
    assert draft([7, 1, 2, 3, 4, 9, 1, 2, 3, 5, 7, 1, 2, 3], length=1) == Draft(14, (4,), 4)


def test_the_most_recent_of_equal_matches_wins() -> None:
    assert draft([1, 2, 3, 4, 8, 1, 2, 3, 5, 9, 1, 2, 3], length=1) == Draft(13, (5,), 3)


def test_beyond_the_longest_match_only_recency_counts() -> None:
    tokens = [7, 1, 2, 3, 4, 9, 1, 2, 3, 5, 7, 1, 2, 3]
    assert draft(tokens, max_match=3, length=1) == Draft(14, (5,), match_length=3)


def test_a_match_that_reaches_the_start_of_the_sequence_stops_there() -> None:
    assert draft([1, 1, 1, 1], length=1).match_length == 3


def test_an_offer_that_runs_out_of_tokens_repeats_its_period() -> None:
    assert draft([5, 1, 2, 1, 2, 1, 2], length=7).tokens == (1, 2, 1, 2, 1, 2, 1)


def test_a_repeating_text_is_accepted_whole_and_scored_so() -> None:
    drafter = PromptLookupDrafter("lookup", 8)
    tokens = [1, 2] * 20
    (outcomes,) = drafter.score([ScoreRequest("a", "tenant", tokens, 6, SAMPLING, True)])
    assert [outcome.accept_length for outcome in outcomes[:27]] == [8] * 27
    assert [outcome.accept_length for outcome in outcomes[-7:]] == [7, 6, 5, 4, 3, 2, 1]
    assert [outcome.censored for outcome in outcomes] == [False] * 27 + [True] * 7


def test_two_sequences_do_not_see_each_other() -> None:
    drafter = PromptLookupDrafter("lookup", 8)
    texts = {"a": [1, 2, 3, 4, 5], "b": [9, 9, 1, 2, 3]}
    requests = [DraftRequest(n, "tenant", t, len(t), SAMPLING, 4) for n, t in texts.items()]
    assert drafter.draft(requests) == [Draft(5), Draft(5)]


def test_memory_is_proportional_to_the_tokens() -> None:
    tokens = [index * 7919 % 65536 for index in range(20_000)]  # all n-grams differ: the worst case
    drafter = PromptLookupDrafter("lookup", 8)
    tracemalloc.start()
    drafter.draft([DraftRequest("a", "tenant", tokens, 100, SAMPLING, 4)])
    drafter.score([ScoreRequest("a", "tenant", tokens, 100, SAMPLING)])
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert used < 400 * len(tokens)


def test_a_common_ngram_costs_a_bounded_number_of_comparisons(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However often the last tokens occurred: each place is told apart one token before them."""
    num_compared = 0
    compare = _Sequence._match_length

    def counted(sequence: _Sequence, earlier_end: int, end: int) -> int:
        nonlocal num_compared
        num_compared += 1
        return compare(sequence, earlier_end, end)

    monkeypatch.setattr(_Sequence, "_match_length", counted)
    tokens = [token for index in range(500) for token in (100 + index, 1, 2, 3)]
    drafter = PromptLookupDrafter("lookup", 8)
    drafter.score([ScoreRequest("a", "tenant", tokens, 10, SAMPLING, True)])
    assert 400 * MAX_CANDIDATES < num_compared <= 500 * MAX_CANDIDATES


def test_few_offers_stay_open_however_rarely_scores_are_asked_for() -> None:
    drafter = PromptLookupDrafter("prompt_lookup", 8)
    tokens = [token for index in range(200) for token in (1, 2, 3, 4, index % 7)]
    for end in range(1, len(tokens) + 1, 3):
        drafter.draft([DraftRequest("a", "tenant", tokens[:end], 1, SAMPLING, 8)])
        assert len(drafter._sequences["a"].open_offers) <= 9
    request = ScoreRequest("a", "tenant", tokens, 1, SAMPLING, finished=True)
    assert [outcome.base_length for outcome in drafter.score([request])[0]] == list(range(1, 1000))
