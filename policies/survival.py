"""Contextual survival: the arm with the most expected tokens beyond what its seconds are worth.

Expected accept lengths come from a table that requests share, keyed by a small context per drafter;
prices from the present load. At high load it falls to plain decoding by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from policies.arms import Arms, Bools, Floats, Ints
from policies.correction import Correction
from policies.features import Features
from policies.ledger import Ledger
from policies.prices import Prices
from policies.rate import Rate
from policies.selector import Context, Decision, Load, Outcome
from policies.survival_table import Shrinkage, SurvivalTable

_INCARNATION = 1 << 32
_RENEWED = 1 / 128  # of the sequences, with every round


@dataclass(frozen=True, slots=True)
class Survival:
    """Settings. `evaluation_share` is the part of plain decoding's seconds that scoring drafters
    which were not chosen may cost, all together: what costs next to nothing is always scored, the
    rest on a sample of the sequences, as it reads all of a sequence's text to score anywhere in it.
    `scope` says who shares a table, and the rate at which seconds are priced.

    `correction_weight` is what "as the table says" counts for, in expected tokens, against a
    request's own record; None leaves requests as the table says. `correction_kept` of that record
    is left after each outcome. `novelty` is the number of outcomes after which a drafter gets half
    the part of a new one, but never less than `least_evaluation` of it, which is what one gets that
    could not beat plain decoding at the best its counts allow.
    """

    scope: Literal["tenant", "global"] = "global"
    features: Features = field(default_factory=Features)
    shrinkage: Shrinkage = field(default_factory=Shrinkage)
    evaluation_share: float = 0.05
    novelty: float = 1000.0
    least_evaluation: float = 0.1
    correction_weight: float | None = 8.0
    correction_kept: float = 0.97
    ledger_size: int = 8192
    incarnation: int = 0


class SurvivalSelector:
    """argmax over arms (d, k) of 1 + sum over i <= k of S_d(i, context) - rate x seconds(d, k)."""

    def __init__(
        self,
        arms: Arms,
        prices: Prices,
        generator: np.random.Generator,
        settings: Survival | None = None,
    ) -> None:
        self._settings = settings or Survival()
        self._prices = prices
        self._generator = generator
        self._rates: dict[int, Rate] = {}
        self._version = self._settings.incarnation * _INCARNATION
        self.table = SurvivalTable(
            len(arms.names),
            self._settings.features.num_cells,
            arms.max_length,
            self._settings.shrinkage,
            self._settings.scope,
        )
        self._set_arms(arms)

    @property
    def arms(self) -> Arms:
        return self._arms

    @property
    def version(self) -> int:
        """As decisions name it."""
        return self._version

    @property
    def features(self) -> Features:
        return self._settings.features

    @property
    def reads_confidences(self) -> bool:
        return bool(self._settings.features.confidence_edges)

    def use_arms(self, arms: Arms, prices: Prices) -> None:
        """Adds and removes arms. Drafters that stay keep their counts.

        Open decisions are let go. `prices` are those of the new arms.
        """
        self._prices = prices
        places = [self._arms.index.get(name, -1) for name in arms.names]
        self.table.use_drafters(np.array(places, np.int64), arms.max_length)
        self._set_arms(arms)

    def _set_arms(self, arms: Arms) -> None:
        self._arms = arms
        num_drafters, settings = len(arms.names), self._settings
        self._correction = Correction(
            num_drafters, settings.correction_weight or 1.0, settings.correction_kept
        )
        self._lots = np.full((1, num_drafters), np.nan)
        self._ledger = Ledger(
            settings.ledger_size,
            {
                "row": (1, np.int64),
                "tenant": (1, np.int64),
                "cells": (num_drafters, np.int64),
                "unheard": (num_drafters, np.bool_),
                "chosen": (1, np.int64),
                "length": (1, np.int64),
                "seconds": (1, np.float64),
                "num_sequences": (1, np.int64),
            },
        )
        self._version += 1

    def choose(self, contexts: Sequence[Context]) -> list[Decision]:
        if not contexts:
            return []
        load = contexts[0].load
        offers = self._arms.offers(contexts)
        cells = self._settings.features.cells(self._arms, contexts)
        lengths, allowed = self._arms.cut(offers)
        prices = self._prices.seconds(load)
        seconds = prices[self._arms.drafters, lengths]
        rows, tenants = self._correction.rows(contexts), self.table.rows(contexts)
        present, places = np.unique(tenants, return_inverse=True)
        rates = self._rates_of(present, load, float(prices[0, 0]))
        shares = self._evaluated(load, prices, present, rates)[places]
        values = self._expected(rows, tenants, cells, lengths) - rates[places, None] * seconds
        chosen = np.where(allowed, values, -np.inf).argmax(axis=1)
        at = np.arange(len(contexts))
        drafters, length = self._arms.drafters[chosen], lengths[at, chosen]
        ids, slots = self._ledger.open(len(contexts), self._version)
        self._ledger["cells"][slots] = cells
        self._ledger["unheard"][slots] = True
        self._ledger["chosen"][slots, 0] = drafters
        self._ledger["length"][slots, 0] = length
        self._ledger["seconds"][slots, 0] = seconds[at, chosen]
        self._ledger["num_sequences"][slots, 0] = load.num_sequences
        self._ledger["row"][slots, 0] = rows
        self._ledger["tenant"][slots, 0] = tenants
        sampled = (offers > 0) & (self._lots_of(rows) < shares)
        sampled[at, drafters] = False
        return self._decisions(drafters, length, ids, sampled)

    def take(self) -> dict[str, Floats]:
        return self.table.take()

    def use(self, merged: Mapping[str, Floats], start: Floats) -> None:
        self.table.use(merged, start)
        self._version += 1

    def _expected(self, rows: Ints, tenants: Ints, cells: Ints, lengths: Ints) -> Floats:
        """Accepted tokens of every arm, by sequence."""
        drafters, table = self._arms.drafters, self.table.expected(tenants)
        expected: Floats = table[tenants[:, None], drafters, cells[:, drafters], lengths]
        if self._settings.correction_weight is not None:
            expected = expected * self._correction.factors(rows)[:, drafters]
        return expected

    def observe(self, outcomes: Sequence[Outcome]) -> None:
        if not outcomes:
            return
        slots = self._ledger.find(outcomes)
        drafters = np.array([self._arms.index.get(o.drafter, -1) for o in outcomes], np.int64)
        rows = np.array([(o.num_offered, o.accept_length, o.is_cut) for o in outcomes], np.int64)
        usable = (slots >= 0) & (drafters >= 0)
        slots, drafters, rows = slots[usable], drafters[usable], rows[usable]
        first = np.unique(slots * len(self._arms.names) + drafters, return_index=True)[1]
        first = first[self._ledger["unheard"][slots[first], drafters[first]]]
        slots, drafters, rows = slots[first], drafters[first], rows[first]
        self._ledger["unheard"][slots, drafters] = False
        is_cut = rows[:, 2]
        offered, accepted = np.minimum(rows[:, :2].T, self._arms.max_length)
        self._observe_rate(slots, drafters, accepted)
        at_risk = np.where(is_cut, accepted, np.minimum(accepted + 1, offered))
        self._observe_requests(slots, drafters, offered, accepted)
        cells, tenants = self._ledger["cells"][slots, drafters], self._ledger["tenant"][slots, 0]
        self.table.add(tenants, drafters, cells, at_risk, accepted)
        self._version += 1

    def forget(self, sequence_ids: Iterable[str]) -> None:
        for sequence_id in sequence_ids:
            row = self._correction.free(sequence_id)
            if row is not None:
                self._lots[row] = np.nan
                rows = self._ledger["row"]
                rows[rows == row] = -1

    def _rates_of(self, tenants: Ints, load: Load, plain_s: float) -> Floats:
        """Each by what its own rounds emit: how well others' drafts do changes nobody's choices."""
        found = [self._rates.setdefault(tenant, Rate()) for tenant in tenants.tolist()]
        return np.array([rate.per_second(load.num_sequences, plain_s) for rate in found])

    def _observe_rate(self, slots: Ints, drafters: Ints, accepted: Ints) -> None:
        mine = self._ledger["chosen"][slots, 0] == drafters
        slots, accepted = slots[mine], accepted[mine]
        kinds = np.stack([self._ledger[name][slots, 0] for name in ("tenant", "num_sequences")])
        for tenant, size in np.unique(kinds, axis=1).T.tolist():
            these = (kinds[0] == tenant) & (kinds[1] == size)
            emitted = np.minimum(accepted[these], self._ledger["length"][slots[these], 0]) + 1
            seconds = self._ledger["seconds"][slots[these], 0].sum()
            rate = self._rates[tenant]
            rate.observe(size, int(these.sum()), float(emitted.sum()), float(seconds))

    def _observe_requests(self, slots: Ints, drafters: Ints, offered: Ints, accepted: Ints) -> None:
        if self._settings.correction_weight is None:
            return
        told = self._ledger["row"][slots, 0] >= 0
        slots, drafters = slots[told], drafters[told]
        cells = self._ledger["cells"][slots, drafters]
        tenants = self._ledger["tenant"][slots, 0]
        expected = self.table.expected(tenants)[tenants, drafters, cells, offered[told]]
        rows = self._ledger["row"][slots, 0]
        self._correction.observe(rows, drafters, accepted[told], expected)

    def _evaluated(self, load: Load, prices: Floats, tenants: Ints, rates: Floats) -> Floats:
        """The part of a tenant's sequences on which each drafter is scored if it was not chosen."""
        settings, plain_s = self._settings, prices[0, 0]
        with np.errstate(divide="ignore", invalid="ignore"):
            share = settings.evaluation_share * (plain_s / self._prices.evaluation_seconds(load))
        num_heard = self.table.num_at_risk[tenants, :, :, 0].sum(axis=2)
        novelty = settings.novelty / (settings.novelty + num_heard)
        costs = rates[:, None, None, None] * (prices - plain_s)[:, None, :]
        gains = self.table.expected_at_best(tenants)[tenants] - costs
        novelty[gains.max(axis=(2, 3)) <= 0] = 0
        parts = np.maximum(novelty, settings.least_evaluation)
        together = np.where(share < 1, parts, 0.0).sum(axis=1, keepdims=True)
        return np.asarray(share * parts / np.maximum(together, 1.0))

    def _lots_of(self, rows: Ints) -> Floats:
        """A number in [0, 1) by sequence and drafter, drawn anew once in a long while."""
        num_missing = int(rows.max()) + 1 - len(self._lots)
        if num_missing > 0:
            more = np.full((max(num_missing, len(self._lots)), self._lots.shape[1]), np.nan)
            self._lots = np.concatenate([self._lots, more])
        is_due = self._generator.random(len(rows)) < _RENEWED
        new = rows[np.isnan(self._lots[rows, 0]) | is_due]
        self._lots[new] = self._generator.random((len(new), self._lots.shape[1]))
        return np.asarray(self._lots[rows])

    def _decisions(
        self, drafters: Ints, lengths: Ints, ids: Ints, sampled: Bools
    ) -> list[Decision]:
        names = self._arms.names
        evaluated: list[tuple[str, ...]] = [()] * len(ids)
        for row in np.flatnonzero(sampled.any(axis=1)).tolist():
            columns = np.flatnonzero(sampled[row]).tolist()
            evaluated[row] = tuple(name for name in map(names.__getitem__, columns) if name)
        return [
            Decision(names[drafter], length, 1.0, self._version, id_, others)
            for drafter, length, id_, others in zip(
                drafters.tolist(), lengths.tolist(), ids.tolist(), evaluated, strict=True
            )
        ]
