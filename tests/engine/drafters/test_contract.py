"""One contract for every drafter, here or on a host: to cover another, add it to `MAKERS`.

A drafter is checked against itself: what `score` reports must be what a fresh drafter, given the
first j tokens and asked to draft, would have had accepted. One on a host is checked against the
same drafter in this process.
"""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hosting import OverZmq
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import FedHead, tiny_head_drafter, tiny_model_drafter

from engine.drafters.drafter import Draft, Drafter, DraftRequest, Outcome, ScoreRequest
from engine.drafters.prompt_lookup import PromptLookupDrafter
from engine.drafters.stopping import Stopping, TopProbabilityEvidence
from engine.drafters.suffix import SuffixDrafter
from engine.request import SamplingParams
from policies.calibration import Stated

Maker = Callable[[], Drafter]


def stopping() -> Stopping:
    """By the raw top probability; about every other draft of 4 tokens stops early."""
    return Stopping(TopProbabilityEvidence(), Stated(), 0.6, 4)


MAKERS: dict[str, Maker] = {
    "prompt_lookup": lambda: PromptLookupDrafter("drafter", 5),
    "prompt_lookup of one token": lambda: PromptLookupDrafter("drafter", 3, 4, 1),
    "suffix": lambda: SuffixDrafter("drafter", 5),
    "suffix without shared outputs": lambda: SuffixDrafter("drafter", 16, 0),
    "model": lambda: tiny_model_drafter("drafter", 4),
    "head": lambda: FedHead(tiny_head_drafter("drafter", 4)),
    "model that stops": lambda: tiny_model_drafter("drafter", 4, stopping=stopping()),
    "head that stops": lambda: FedHead(tiny_head_drafter("drafter", 4, stopping=stopping())),
}
REMOTE = {f"{name} over ZMQ": OverZmq(MAKERS[name]) for name in ("suffix", "model")}
SLOW = REMOTE["model over ZMQ"]
SAMPLING = SamplingParams(temperature=0.0)
MOTIFS = st.lists(st.integers(0, 3), min_size=1, max_size=6)
TEXTS = st.lists(MOTIFS, min_size=1, max_size=3).flatmap(
    lambda motifs: st.lists(st.sampled_from(motifs), min_size=2, max_size=8).map(
        lambda parts: [token for part in parts for token in part]
    )
)

every_drafter = pytest.mark.parametrize(
    "make", [*MAKERS.values(), *REMOTE.values()], ids=[*MAKERS, *REMOTE]
)
Check = Callable[..., None]


def checked(**strategies: Any) -> Callable[[Check], Check]:
    """With 60 texts; with a few only of the one that is slow."""

    def decorate(check: Check) -> Check:
        @every_drafter
        def test(make: Maker) -> None:
            num_examples = 6 if make is SLOW else 60
            given_texts = given(**strategies)(check)
            settings(max_examples=num_examples, deadline=None, derandomize=True)(given_texts)(make)

        test.__name__, test.__doc__ = check.__name__, check.__doc__
        return test

    return decorate


@pytest.fixture(autouse=True)
def hosts_are_closed() -> Iterator[None]:
    yield
    for make in REMOTE.values():
        make.close()


def draft_request(
    tokens: Sequence[int], num_prompt_tokens: int, draft_length: int, name: str = "a"
) -> DraftRequest:
    return DraftRequest(name, "tenant", tokens, num_prompt_tokens, SAMPLING, draft_length)


def score_request(
    tokens: Sequence[int], num_prompt_tokens: int, finished: bool = False, name: str = "a"
) -> ScoreRequest:
    return ScoreRequest(name, "tenant", tokens, num_prompt_tokens, SAMPLING, finished)


def draft_afresh(make: Maker, tokens: Sequence[int], num_prompt_tokens: int) -> Draft:
    drafter = make.local() if isinstance(make, OverZmq) else make()
    request = draft_request(tokens, num_prompt_tokens, drafter.max_draft_length)
    (draft,) = drafter.draft([request])
    lacks = len(draft.tokens) < request.draft_length
    seen_late = isinstance(make, OverZmq) and drafter.is_free  # what it lacks it has stopped before
    return replace(draft, is_stopped=draft.is_stopped or (seen_late and lacks))


def outcome_at(draft: Draft, tokens: Sequence[int], finished: bool, longest: int) -> Outcome | None:
    """What `tokens` says of a draft; None if its accept length is still open, or was never tested.

    Written apart from the drafters: the offer is compared token by token. What a drafter that
    stopped did not draft counts as refused.
    """
    truth = tokens[draft.base_length :]
    accepted = 0
    while (
        accepted < min(len(draft.tokens), len(truth)) and draft.tokens[accepted] == truth[accepted]
    ):
        accepted += 1
    is_open = accepted == len(truth) and (accepted < len(draft.tokens) or not truth)
    if is_open and not (finished and truth):
        return None
    num_offered = longest if draft.is_stopped else len(draft.tokens)
    return Outcome(draft.base_length, num_offered, accepted, censored=is_open)


@checked(text=TEXTS, data=st.data())
def test_score_reports_what_drafting_at_each_position_would_have_given(
    make: Maker, text: list[int], data: st.DataObject
) -> None:
    """Each exactly once, in the very call that settles it, in whatever steps the text arrives."""
    num_prompt_tokens = data.draw(st.integers(1, len(text)))
    drafter, num_known = make(), num_prompt_tokens
    longest = drafter.max_draft_length
    drafts = {
        position: draft_afresh(make, text[:position], num_prompt_tokens)
        for position in range(num_prompt_tokens, len(text) + 1)
    }
    reported: set[int] = set()
    finished = False
    while not finished:
        known = text[:num_known]
        if data.draw(st.booleans()):
            drafter.draft([draft_request(known, num_prompt_tokens, 2)])
        finished = num_known == len(text)
        (outcomes,) = drafter.score([score_request(known, num_prompt_tokens, finished)])
        settled = [
            outcome
            for position in range(num_prompt_tokens, num_known + 1)
            if position not in reported
            and (outcome := outcome_at(drafts[position], known, finished, longest)) is not None
        ]
        assert outcomes == settled
        reported |= {outcome.base_length for outcome in outcomes}
        num_known = min(len(text), num_known + data.draw(st.integers(1, 7)))
    assert reported == set(range(num_prompt_tokens, len(text)))


@checked(text=TEXTS, draft_length=st.integers(0, 20), data=st.data())
def test_a_draft_is_as_long_as_asked_at_most_and_starts_where_asked(
    make: Maker, text: list[int], draft_length: int, data: st.DataObject
) -> None:
    num_prompt_tokens = data.draw(st.integers(1, len(text)))
    drafter = make()
    for end in range(num_prompt_tokens, len(text) + 1):
        (draft,) = drafter.draft([draft_request(text[:end], num_prompt_tokens, draft_length)])
        longest = draft_afresh(make, text[:end], num_prompt_tokens)
        assert draft.base_length == end
        assert draft.tokens == longest.tokens[:draft_length]
        assert len(draft.tokens) <= drafter.max_draft_length
        assert draft.match_length >= 0


@checked(text=TEXTS)
def test_asking_again_gives_the_same_draft(make: Maker, text: list[int]) -> None:
    drafter = make()
    requests = [draft_request(text, 1, drafter.max_draft_length)]
    assert drafter.draft(requests) == drafter.draft(requests) == make().draft(requests)


@checked(texts=st.lists(TEXTS, min_size=2, max_size=4), data=st.data())
def test_the_order_of_a_batch_changes_nothing(
    make: Maker, texts: list[list[int]], data: st.DataObject
) -> None:
    order = data.draw(st.permutations(range(len(texts))))
    straight, shuffled = make(), make()
    for end in range(1, max(map(len, texts)) + 1, 3):
        known = [text[:end] for text in texts]
        drafts = [draft_request(text, 1, 4, str(i)) for i, text in enumerate(known)]
        scores = [
            score_request(text, 1, end >= len(texts[i]), str(i)) for i, text in enumerate(known)
        ]
        expected = straight.draft(drafts)
        assert shuffled.draft([drafts[i] for i in order]) == [expected[i] for i in order]
        outcomes = straight.score(scores)
        assert shuffled.score([scores[i] for i in order]) == [outcomes[i] for i in order]


@checked(first=TEXTS, second=TEXTS)
def test_a_forgotten_sequence_leaves_nothing_to_its_name(
    make: Maker, first: list[int], second: list[int]
) -> None:
    drafter = make()
    drafter.draft([draft_request(first, 1, 4)])
    drafter.forget(["a"])
    (outcomes,) = drafter.score([score_request(second, 1)])
    assert outcomes == make().score([score_request(second, 1)])[0]


@every_drafter
def test_forgetting_frees_the_memory(make: Maker) -> None:
    drafter = make()
    tokens = [token % 97 for token in range(1000)]

    def serve(num_sequences: int) -> None:
        for index in range(num_sequences):
            drafter.draft([draft_request(tokens, 10, 4, str(index))])
            drafter.forget([str(index)])
        gc.collect()

    serve(3)
    tracemalloc.start()
    serve(20)
    left, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert left < max(peak / 10, 1024)


@every_drafter
def test_forgetting_an_unknown_sequence_is_no_error(make: Maker) -> None:
    drafter = make()
    drafter.forget(["never seen"])
    drafter.draft([draft_request([1, 2, 3], 1, 4)])
    drafter.forget(["a", "a", "never seen"])


@every_drafter
def test_the_callers_tokens_are_neither_kept_nor_changed(make: Maker) -> None:
    drafter = make()
    tokens = [1, 2, 3, 4, 1, 2, 3, 4, 1, 2, 3]
    drafter.draft([draft_request(tokens, 4, 4)])
    drafter.score([score_request(tokens, 4)])
    assert tokens == [1, 2, 3, 4, 1, 2, 3, 4, 1, 2, 3]
    longer = [*tokens, 4]
    tokens[:] = [9] * len(tokens)
    (draft,) = drafter.draft([draft_request(longer, 4, 4)])
    assert draft == make().draft([draft_request(longer, 4, 4)])[0]


@every_drafter
def test_an_empty_batch_is_answered_in_kind(make: Maker) -> None:
    drafter = make()
    assert drafter.draft([]) == []
    assert drafter.score([]) == []
    drafter.forget([])
