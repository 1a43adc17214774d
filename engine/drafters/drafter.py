"""The contract of every drafter, and the plain data that crosses it.

A position j names the state "the first j tokens of the sequence are verified". A draft at base
length j guesses tokens j, j+1, ...; its accept length is how many of them equal the target's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from engine.request import SamplingParams

if TYPE_CHECKING:
    from torch import Tensor


class Past(Protocol):
    """The target's last hidden states of a sequence's first `num_known` tokens.

    Good for the call that it is handed to, and no longer.
    """

    @property
    def num_known(self) -> int: ...

    def read(self, start: int, end: int) -> Tensor:
        """[end - start, hidden_size], for 0 <= start <= end <= num_known."""
        ...


@dataclass(frozen=True, slots=True)
class DraftRequest:
    """Asks for at most `draft_length` tokens to follow `tokens`, all of them verified.

    `tokens` is the prompt and everything emitted, the first `num_prompt_tokens` being the prompt;
    it is the engine's own growing list: read it, never keep or change it. `past` has the target's
    hidden states of all tokens but the last, if some drafter of the engine builds on them.
    """

    sequence_id: str
    tenant: str
    tokens: Sequence[int]
    num_prompt_tokens: int
    sampling: SamplingParams
    draft_length: int
    past: Past | None = None


@dataclass(frozen=True, slots=True)
class Draft:
    """`tokens` to follow the first `base_length` tokens; empty is "no offer".

    `is_stopped` says that the drafter itself went no further, though more was asked for.
    `match_length` and `streak` are the drafter's own evidence, 0 if it has none: how many tokens of
    context matched, and how many of the last tokens in a row it would have predicted one by one.
    """

    base_length: int
    tokens: tuple[int, ...] = ()
    match_length: int = 0
    streak: int = 0
    is_stopped: bool = False

    def num_given_up(self, draft_length: int) -> int:
        """Tokens of `draft_length` that the drafter itself did not draft."""
        return draft_length - len(self.tokens) if self.is_stopped else 0

    @property
    def is_made(self) -> bool:
        """Whether the drafter has tried, and be it that it stopped before the first token."""
        return bool(self.tokens) or self.is_stopped


@dataclass(frozen=True, slots=True)
class Outcome:
    """What `draft` would have given at position `base_length`, had a round started there.

    `num_offered` tokens would have been drafted, `accept_length` of them accepted. A drafter that
    stops of itself counts as offering its longest draft, refused from where it stops: what it does
    not draft is never accepted. `censored` means that the sequence ended first, so that the accept
    length is "at least" this.
    """

    base_length: int
    num_offered: int
    accept_length: int
    censored: bool = False


@dataclass(frozen=True, slots=True)
class ScoreRequest:
    """Verified tokens of a sequence; `finished` settles what is still open, as censored.

    `past` is that of `DraftRequest`.
    """

    sequence_id: str
    tenant: str
    tokens: Sequence[int]
    num_prompt_tokens: int
    sampling: SamplingParams
    finished: bool = False
    past: Past | None = None


@runtime_checkable
class Forecaster(Protocol):
    """A drafter that can say beforehand how sure it is of its next token."""

    def forecast(self, requests: Sequence[DraftRequest]) -> list[float | None]:
        """The chance it gives the first token of each draft; None if it cannot tell."""
        ...


@runtime_checkable
class Reader(Protocol):
    """A drafter that takes its time to read a sequence, and can do so in parts."""

    def read(self, requests: Sequence[ScoreRequest], max_tokens: int) -> list[int]:
        """Reads at most `max_tokens` tokens of all together, of those with the least left first;
        gives how many each has left. One that it cannot hold has none."""
        ...


@runtime_checkable
class Forerunner(Protocol):
    """A drafter that can use its spare time: it goes on as if all that it drafted were accepted."""

    def draft_ahead(self, requests: Sequence[DraftRequest]) -> bool:
        """One more token of each that was drafted, up to `draft_length` from the verified ones on;
        whether there was any to draw. What `draft` gives afterwards is the same, and sooner."""
        ...


class Drafter(Protocol):
    """Guesses tokens for many sequences at once. Wrong guesses cost time, never correctness.

    `name` identifies it in configuration and reports; `is_free` says that a draft costs
    microseconds, so that the engine may ask before it decides; `max_draft_length` bounds a draft.
    """

    name: str
    is_free: bool
    max_draft_length: int

    def draft(self, requests: Sequence[DraftRequest]) -> list[Draft]:
        """One draft per request, in order, each at most `draft_length` tokens."""
        ...

    def score(self, requests: Sequence[ScoreRequest]) -> list[list[Outcome]]:
        """Outcomes settled since the last call, per request, by ascending base length.

        Every position j with num_prompt_tokens <= j < len(tokens) is reported exactly once, as soon
        as its outcome is known, and is what `draft` would have given there at `max_draft_length`,
        whether or not this drafter was asked.
        """
        ...

    def forget(self, sequence_ids: Iterable[str]) -> None:
        """Drops all state of these sequences; unknown ids are ignored."""
        ...


@runtime_checkable
class Follower(Protocol):
    """A drafter somewhere else: it hears of verified tokens ahead, drafts while the engine goes on,
    and may be out of reach.

    While it `is_away` it is not asked, and that is no failure of its. It never waits to score: what
    has come is given whenever it is asked again, of a finished sequence until that is forgotten.
    """

    @property
    def is_away(self) -> bool: ...

    def follow(self, sequences: Sequence[ScoreRequest]) -> None:
        """Told at each round's start, so that it can catch up meanwhile; never waits."""
        ...

    def ask(self, requests: Sequence[DraftRequest]) -> None:
        """Begins to draft; never waits. Of two questions about a sequence the later counts."""
        ...

    def take(self, wait_s: float) -> dict[str, Draft]:
        """By sequence, what has come of what was asked: each draft once, after a deadline anything
        that is none. Waits for something to come from anywhere, but no longer than `wait_s`."""
        ...
