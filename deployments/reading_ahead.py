"""What a host's drafters have not read yet, and which of it they read without being asked."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from deployments.hosted_sequences import HostedSequence

MAX_READ_TOKENS = 256  # in one go
_LEAST_NEWS_TOKENS = 16  # that are read without a question: reading one takes as long
_LEAST_DEMAND = 0.25  # share of the sequences asked about: with less, reading is mostly in vain
_DEMAND_STEP = 1 / 16  # of that share, with every sequence that ends


class ReadingAhead:
    """Drafters take turns. One that targets hardly ask about any sequence reads it when they do."""

    def __init__(self, drafters: Iterable[str]) -> None:
        self._unread: dict[str, dict[str, HostedSequence]] = {name: {} for name in drafters}
        self._demand = dict.fromkeys(self._unread, 1.0)

    def __bool__(self) -> bool:
        return any(self._unread.values())

    def use_drafters(self, kept: Collection[str], new: Collection[str]) -> None:
        """These from now on."""
        self._unread = {name: self._unread[name] for name in kept} | {name: {} for name in new}
        self._demand = {name: self._demand[name] for name in kept} | dict.fromkeys(new, 1.0)

    def note(self, sequence: HostedSequence) -> None:
        """It has tokens that are new."""
        for name, unread in self._unread.items():
            if name not in sequence.asked and self._demand[name] < _LEAST_DEMAND:
                continue
            least = _LEAST_NEWS_TOKENS if sequence.num_read.get(name) else 1
            if sequence.has_prompt and sequence.num_unread(name) >= least:
                unread[sequence.id] = sequence

    def note_end(self, sequence: HostedSequence) -> None:
        for name, share in self._demand.items():
            self._demand[name] = share + ((name in sequence.asked) - share) * _DEMAND_STEP

    def put(self, drafter: str, sequence: HostedSequence) -> None:
        """It was read in part."""
        self._unread[drafter][sequence.id] = sequence

    def drop(self, drafter: str, sequence_ids: Iterable[str]) -> None:
        for sequence_id in sequence_ids:
            self._unread[drafter].pop(sequence_id, None)

    def next(self) -> tuple[str, list[HostedSequence]] | None:
        """A drafter, and what it reads now: of the sequences with the least first."""
        for name in list(self._unread):
            unread = self._unread[name] = self._unread.pop(name)  # others come first next time
            batch, budget = [], MAX_READ_TOKENS
            for sequence in sorted(unread.values(), key=lambda each: each.num_unread(name)):
                if budget > 0:
                    budget -= sequence.num_unread(name)
                    batch.append(sequence)
            if batch:
                return name, batch
        return None
