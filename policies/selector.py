"""The contract of every selector: which drafter drafts how many tokens, for each sequence, now.

A selector that learns is a `Learner`: it is told outcomes, and each names its decision.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable


@dataclass(frozen=True, slots=True)
class Load:
    """What the step at hand carries: sequences that decode, tokens they and the prefills bring
    without any draft, and the KV entries that attention reads."""

    num_sequences: int = 1
    num_tokens: int = 1
    num_kv_entries: int = 0


IDLE = Load()


@dataclass(frozen=True, slots=True)
class Context:
    """What is known of one sequence at a round's start.

    `draft_lengths` maps each drafter that may draft now to the longest draft it can give: a free
    drafter's actual offer, another's limit. A drafter that is absent is masked this round.
    `match_lengths` holds the evidence of those that have some (tokens of context matched).
    `streaks` holds, of those where it is known, how many of the last verified tokens in a row the
    drafter would have predicted. `confidences` holds, of drafters that forecast, the chance they
    give their next token. `load` is the same for all contexts of a step.
    """

    sequence_id: str
    tenant: str
    draft_lengths: Mapping[str, int]
    match_lengths: Mapping[str, int]
    streaks: Mapping[str, int] = field(default_factory=dict)
    load: Load = IDLE
    confidences: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Decision:
    """The arm chosen: `draft_length` tokens from `drafter`; None and 0 is plain decoding.

    `id` names the decision in outcomes, negative where nobody wants any; `table_version` is that
    of the tables it was made from, `probability` that of the arm at the choice. The drafters of
    `evaluated` should be scored at this position too, to their full length.
    """

    drafter: str | None = None
    draft_length: int = 0
    probability: float = 1.0
    table_version: int = 0
    id: int = -1
    evaluated: tuple[str, ...] = ()


PLAIN = Decision()


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a draft of `num_offered` tokens from `drafter` did, or would have done, at a decision.

    The chosen drafter's own draft and those of `Decision.evaluated` are told alike, in any order;
    of two outcomes of one drafter at one decision the first that suffices counts. Plain decoding
    has `drafter` None. `is_cut` says that the sequence ended first: the accept length is "at least"
    this. A draft that was accepted whole says "at least" by itself.
    """

    decision_id: int
    table_version: int
    drafter: str | None
    num_offered: int
    accept_length: int
    is_cut: bool = False

    @staticmethod
    def of(decision: Decision, accept_length: int, is_cut: bool = False) -> Outcome:
        """What became of the draft that was chosen."""
        return Outcome(
            decision.id,
            decision.table_version,
            decision.drafter,
            decision.draft_length,
            accept_length,
            is_cut,
        )


class Selector(Protocol):
    """Chooses an arm per sequence; pure: no I/O, no clock."""

    def choose(self, contexts: Sequence[Context]) -> list[Decision]:
        """One decision per context, in order, within the context's draft lengths."""
        ...


@runtime_checkable
class ReadsConfidences(Protocol):
    """A selector whose contexts should have confidences, which cost time, if this is true."""

    @property
    def reads_confidences(self) -> bool: ...


@runtime_checkable
class Learner(Selector, Protocol):
    """A selector that wants outcomes.

    Those of decisions it does not know (any more), or of another incarnation, are passed over.
    """

    def observe(self, outcomes: Sequence[Outcome]) -> None:
        """Learns from outcomes, late and out of order as they may be."""
        ...

    def forget(self, sequence_ids: Iterable[str]) -> None:
        """Drops what is held for these sequences alone; unknown ids are passed over."""
        ...
