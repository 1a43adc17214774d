"""A learner over arms: turns outcomes into losses in [0, 1], and leaves the rule to its rule.

It keeps the probability of each choice with the decision, so that feedback that is late, out of
order or repeated cannot corrupt an importance weight.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np

from policies.arms import Arms, Bools, Floats, Ints
from policies.ledger import Ledger
from policies.prices import Prices
from policies.rows import Rows, Scope, turns
from policies.selector import Context, Decision, Outcome

Loss = Literal["tokens", "seconds"]
_INCARNATION = 1 << 32


@dataclass(frozen=True, slots=True)
class Plays:
    """Rounds whose outcome is known: the arm chosen, every arm's probability then, and losses.

    `losses` are in [0, 1]; a rule that does not see all may read those of chosen arms alone.
    """

    chosen: Ints  # [num_plays]
    probabilities: Floats  # [num_plays, num_arms]
    losses: Floats  # [num_plays, num_arms]


class Rule(Protocol):
    """Weighs arms by additive sums; `sums` names them. The first two are counts: of choices made,
    and of rounds observed.

    `sees_all`: it learns from every drafter's accept length, not only the chosen one's.
    `joins_at_mean`: a new arm starts with the others' mean sums, so that it is neither sure to win
    nor sure to lose; else it starts empty.
    """

    @property
    def sums(self) -> tuple[str, ...]: ...

    @property
    def sees_all(self) -> bool: ...

    @property
    def joins_at_mean(self) -> bool: ...

    def probabilities(self, sums: Floats, allowed: Bools, turns: Ints) -> Floats:
        """By sequence and arm, from sums [num_sequences, num_sums, num_arms].

        `turns` counts the sequences before each in this batch that share its sums.
        """
        ...

    def increments(self, plays: Plays) -> Floats:
        """What each play adds to the sums [num_plays, num_sums, num_arms]."""
        ...


@dataclass(frozen=True, slots=True)
class Learning:
    """`tokens` ignores what an arm costs, `seconds` counts emitted tokens by the second.

    `incarnation` tells the decisions of this selector from those of one that it replaces.
    """

    loss: Loss = "tokens"
    scope: Scope = "request"
    ledger_size: int = 8192
    incarnation: int = 0


class LearningSelector:
    """BanditSpec's loop (arXiv 2505.15141, algorithm 1) over any rule, batched over sequences."""

    def __init__(
        self,
        arms: Arms,
        rule: Rule,
        prices: Prices,
        generator: np.random.Generator,
        settings: Learning | None = None,
    ) -> None:
        self._settings = settings or Learning()
        if self._settings.loss not in ("tokens", "seconds"):
            raise ValueError(
                f"loss: {self._settings.loss!r} is not allowed; expected tokens or seconds"
            )
        self._rule = rule
        self._prices = prices
        self._generator = generator
        self._rows = Rows(self._settings.scope, len(rule.sums), len(arms))
        self._version = self._settings.incarnation * _INCARNATION
        self._set_arms(arms)

    @property
    def arms(self) -> Arms:
        return self._arms

    @property
    def version(self) -> int:
        """As decisions name it."""
        return self._version

    @property
    def scope(self) -> Scope:
        return self._settings.scope

    def use_arms(self, arms: Arms, prices: Prices) -> None:
        """Adds and removes arms. Those that stay keep their sums.

        Open decisions are let go. `prices` are those of the new arms.
        """
        self._prices = prices
        places = arms.remap(self._arms)
        old = self._rows.sums
        added = np.where(places >= 0, self._rows.added[:, :, places], 0.0)
        sums = np.where(places >= 0, old[:, :, places], 0.0)
        if self._rule.joins_at_mean:
            sums = np.where(places >= 0, sums, old.mean(axis=2, keepdims=True))
        self._rows.replace(sums, added)
        self._set_arms(arms)

    def _set_arms(self, arms: Arms) -> None:
        self._arms = arms
        num_arms = len(arms)
        self._ledger = Ledger(
            self._settings.ledger_size,
            {
                "row": (1, np.int64),
                "chosen": (1, np.int64),
                "lengths": (num_arms, np.int32),
                "probabilities": (num_arms, np.float64),
                "rates": (num_arms, np.float64),
                "accepted": (len(arms.names), np.int32),
            },
        )
        self._version += 1

    def choose(self, contexts: Sequence[Context]) -> list[Decision]:
        if not contexts:
            return []
        rows = self._rows.of(contexts)
        lengths, allowed = self._arms.cut(self._arms.offers(contexts))
        weights = self._rule.probabilities(self._rows.sums[rows], allowed, turns(rows))
        chosen = self._draw(weights)
        num_sums, num_arms = self._rows.sums.shape[1:]
        np.add.at(self._rows.sums.reshape(-1), rows * num_sums * num_arms + chosen, 1)
        ids, slots = self._ledger.open(len(contexts), self._version)
        self._ledger["row"][slots, 0] = rows
        self._ledger["chosen"][slots, 0] = chosen
        self._ledger["lengths"][slots] = lengths
        self._ledger["probabilities"][slots] = weights
        self._ledger["rates"][slots] = self._rates(contexts[0], lengths)
        self._ledger["accepted"][slots] = self._known_at_once(lengths)
        return self._decisions(contexts, ids, slots, chosen)

    def observe(self, outcomes: Sequence[Outcome]) -> None:
        if not outcomes:
            return
        slots = self._ledger.find(outcomes)
        drafters = np.array([self._arms.index.get(o.drafter, -1) for o in outcomes], np.int64)
        offered = np.array([outcome.num_offered for outcome in outcomes], np.int64)
        accepted = np.array([outcome.accept_length for outcome in outcomes], np.int64)
        is_cut = np.array([outcome.is_cut for outcome in outcomes], np.bool_)
        self._ledger.close(slots[is_cut & (slots >= 0)])
        usable = ~is_cut & (slots >= 0) & (drafters >= 0)
        needed = self._needed(slots, drafters)
        usable &= (accepted < offered) | (offered >= needed)
        if not self._rule.sees_all:
            chosen = self._ledger["chosen"][slots, 0]
            usable &= self._arms.drafters[chosen] == drafters
        slots, drafters, accepted = slots[usable], drafters[usable], accepted[usable]
        # The first outcome that suffices counts, so the last to be written is the first.
        self._ledger["accepted"][slots[::-1], drafters[::-1]] = accepted[::-1]
        self._learn(self._complete(np.unique(slots)))

    def forget(self, sequence_ids: Iterable[str]) -> None:
        for sequence_id in sequence_ids:
            row = self._rows.free(sequence_id)
            if row is not None:
                self._ledger.close_where("row", row)

    @property
    def sum_names(self) -> tuple[str, ...]:
        return self._rule.sums

    @property
    def sums(self) -> dict[str, Floats]:
        """By request, tenant or (for all) "": what the rule weighs [num_sums, num_arms]."""
        return {key: self._rows.sums[row] for key, row in self._rows.keys.items()}

    def take(self) -> dict[str, Floats]:
        return self._rows.take()

    def use(self, merged: Mapping[str, Floats], start: Floats) -> None:
        """Of sums that are damaged, counts below 0 become 0."""
        self._rows.use({key: _sound(sums) for key, sums in merged.items()}, _sound(start))
        self._version += 1

    def _draw(self, weights: Floats) -> Ints:
        sums = np.cumsum(weights, axis=1)
        marks = self._generator.random(len(weights)) * sums[:, -1]
        chosen: Ints = (sums > marks[:, None]).argmax(axis=1)
        return chosen

    def _rates(self, context: Context, lengths: Ints) -> Floats:
        """By arm 1 / (seconds x the most tokens per second conceivable); 1 where tokens count."""
        if self._settings.loss == "tokens":
            return np.ones(lengths.shape)
        seconds = self._prices.seconds(context.load)
        best = ((np.arange(seconds.shape[1]) + 1) / seconds).max()
        return np.asarray(1 / (seconds[self._arms.drafters, lengths] * best))

    def _known_at_once(self, lengths: Ints) -> Ints:
        """-1 for each drafter that we shall hear of; a masked one, and none, accepts nothing."""
        longest = self._arms.longest(lengths)
        return np.where(longest > 0, -1, 0)

    def _needed(self, slots: Ints, drafters: Ints) -> Ints:
        """The draft length that an outcome must speak of: the chosen, or the drafter's longest."""
        lengths = self._ledger["lengths"][slots]
        if not self._rule.sees_all:
            chosen = self._ledger["chosen"][slots, 0]
            return np.asarray(lengths[np.arange(len(slots)), chosen], np.int64)
        return self._arms.longest(lengths)[np.arange(len(slots)), drafters]

    def _complete(self, slots: Ints) -> Ints:
        """Those of `slots` of which all is known that the rule wants."""
        accepted = self._ledger["accepted"][slots]
        if self._rule.sees_all:
            return slots[(accepted >= 0).all(axis=1)]
        return slots

    def _learn(self, slots: Ints) -> None:
        if not len(slots):
            return
        self._ledger.close(slots)
        drafters, lengths = self._arms.drafters, self._ledger["lengths"][slots]
        accepted = self._ledger["accepted"][slots][:, drafters]
        emitted = np.minimum(np.maximum(accepted, 0), lengths) + 1.0
        plays = Plays(
            self._ledger["chosen"][slots, 0],
            self._ledger["probabilities"][slots],
            self._losses(emitted, self._ledger["rates"][slots]),
        )
        rows = self._ledger["row"][slots, 0]
        np.add.at(self._rows.sums, rows, self._rule.increments(plays))
        self._version += 1

    def _losses(self, emitted: Floats, rates: Floats) -> Floats:
        if self._settings.loss == "seconds":
            return np.clip(1 - emitted * rates, 0, 1)
        longest = self._arms.max_length
        return (longest + 1 - emitted) / (longest + self._rule.sees_all)

    def _decisions(
        self, contexts: Sequence[Context], ids: Ints, slots: Ints, chosen: Ints
    ) -> list[Decision]:
        names = self._arms.names
        at = np.arange(len(ids))
        return [
            Decision(names[drafter], length, probability, self._version, id_, evaluated)
            for drafter, length, probability, id_, evaluated in zip(
                self._arms.drafters[chosen].tolist(),
                self._ledger["lengths"][slots][at, chosen].tolist(),
                self._ledger["probabilities"][slots][at, chosen].tolist(),
                ids.tolist(),
                [self._evaluated(context) for context in contexts],
                strict=True,
            )
        ]

    def _evaluated(self, context: Context) -> tuple[str, ...]:
        if not self._rule.sees_all:
            return ()
        return tuple(
            name
            for name, length in context.draft_lengths.items()
            if length and name in self._arms.index
        )


def _sound(sums: Floats) -> Floats:
    return np.concatenate([np.maximum(sums[:2], 0.0), sums[2:]])
