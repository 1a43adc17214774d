"""What a target learns goes to the others through the router, and what they learn comes back."""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Sequence
from typing import Any

from cluster.config import ClusterConfig, DrafterSection
from cluster.drafter_folder import find_folder
from cluster.statistics.exchange import Exchange, ExchangeCounters, ExchangeSettings
from cluster.statistics.exchange_thread import ExchangeThread
from cluster.statistics.keys import Pool, fingerprint
from cluster.statistics.learning import LearningExchange, SharedLearner
from cluster.statistics.survival import Weights
from deployments import model_card
from deployments.engine_thread import EngineThread
from deployments.router_store import RouterStore
from engine.model_files import resolve_model
from policies.features import Features


class Sharing:
    """Exchanges about four times a second, in a thread that the engine never waits for.

    Without a router the target goes on from what it knows, and counts wait.
    """

    def __init__(self, config: ClusterConfig, router: Any, engine: EngineThread) -> None:
        section = config.redis
        exchange = Exchange(
            RouterStore(router, pool(config)),
            lambda: uuid.uuid4().hex,
            time.monotonic,
            random.random,
            ExchangeSettings(half_life_s=section.half_life_s),
        )
        weights = Weights(section.tenant_weight, section.shared_weight)
        self._learning = LearningExchange(exchange, section.half_life_s, weights, engine.call)
        self._thread = ExchangeThread(self._learning)

    def start(self, learners: Sequence[SharedLearner]) -> None:
        self.follow(learners)
        self._thread.__enter__()

    def follow(self, learners: Sequence[SharedLearner]) -> None:
        """These from now on."""
        self._learning.follow(learners)

    @property
    def counters(self) -> ExchangeCounters:
        return self._learning.counters

    def stop(self) -> None:
        """Sends what is left; the engine's thread must still run."""
        self._thread.__exit__()


def pool(config: ClusterConfig) -> Pool:
    """Counts mean the same where the model, the drafters and their contexts are the same."""
    features = Features()
    facts = sorted(map(_facts, config.drafters))
    return Pool(
        model_card.fingerprint(resolve_model(config.target.model)),
        fingerprint(facts, features.match_edges, features.streak_edges),
    )


def _facts(drafter: DrafterSection) -> tuple[str, ...]:
    """What decides which tokens it drafts, and where it stops.

    A trained drafter goes by what is in its folder, and where that is not, as on a host's machine
    alone, by its path. A model on a host goes by its name: its files need not be here.
    """
    trained, model = drafter.path or "", drafter.model or ""
    if trained and find_folder(trained).is_dir():
        trained = model_card.fingerprint(find_folder(trained))
    if model and drafter.host is None:
        model = model_card.fingerprint(resolve_model(model))
    stops = "" if drafter.stop_threshold is None else repr(drafter.stop_threshold)
    return drafter.name, drafter.kind, model, trained, stops
