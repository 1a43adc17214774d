"""A target replica: one copy of the model on one device, stepped by one thread.

What crosses its handle is plain data. Its settings change live; a failed engine fails the health
check, and Serve starts another replica.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

from cluster.config import ClusterConfig, TargetSettings
from deployments.engine_thread import EngineThread
from deployments.hosts import Hosts
from deployments.latencies import Latencies, Stopwatch
from deployments.metric_families import Family, target_families
from deployments.metrics_export import ExportThread, RayInstruments
from deployments.model_card import ModelCard, fingerprint
from deployments.refusal import Refusal
from deployments.selectors import Selectors
from deployments.sharing import Sharing
from deployments.target_counters import TargetCounters
from engine.config import DrafterConfig, TargetConfig
from engine.errors import CapacityError, InvalidRequestError
from engine.model_files import resolve_model
from engine.request import Emission, GenerationRequest, SpeculationOptions


class Target:
    """Serves `config["target"]` with `config["drafters"]`; loads for seconds, then answers.

    `router` is the Serve handle of the deployment Router, `hosts` are those of the deployments of
    `config["hosts"]`, by name.
    """

    def __init__(self, config: Mapping[str, object], router: Any, hosts: Mapping[str, Any]) -> None:
        from engine.build import build_engine  # loads torch, which only this process may

        self._config = ClusterConfig.model_validate(config)
        section = self._config.target
        target = TargetConfig(**section.model_dump())
        drafters = [
            DrafterConfig(**drafter.model_dump(exclude={"host"}))
            for drafter in self._config.drafters_at(None)
        ]
        elsewhere = Hosts(self._config, resolve_model(section.model), hosts).drafters
        self._engine = build_engine(target, drafters, elsewhere)
        facts = (section.model, section.dtype, section.numerics, section.device)
        self._card = ModelCard(
            model=section.model,
            vocab_size=self._engine.vocab_size,
            max_sequence_length=self._engine.max_sequence_length,
            fingerprint=fingerprint(resolve_model(section.model), *facts),
            created_s=int(time.time()),
        )
        self._latencies = Latencies()
        self._settings = TargetSettings()
        longest = {drafter.name: drafter.max_draft_length for drafter in self._config.drafters}
        self._selectors = Selectors(longest, self._engine.costs)
        self._engine.use_selectors(*self._selectors.build(self._settings))
        self._thread = EngineThread(self._engine)
        self._sharing = Sharing(self._config, router, self._thread)
        self._sharing.start(self._selectors.shared)
        self._export = ExportThread(self._families, RayInstruments())

    async def reconfigure(self, user_config: Mapping[str, object]) -> None:
        """Applies new settings between two rounds; wrong ones are refused and change nothing."""
        settings = TargetSettings.model_validate(user_config)
        for path, drafter in settings.unknown_drafters(self._config):
            raise ValueError(f"{path}: {drafter!r} is no configured drafter")
        default, named = self._selectors.build(settings)
        await self._thread.run(lambda: self._engine.use_selectors(default, named))
        await self._thread.run(lambda: self._engine.disable(settings.disabled))
        self._sharing.follow(self._selectors.shared)
        self._settings = settings

    async def describe(self) -> ModelCard:
        """For health too: a failed engine does not answer."""
        self._thread.check()
        return self._card

    async def counters(self) -> TargetCounters:
        engine = await self._thread.run(self._engine.counters)
        return TargetCounters(engine, self._latencies, self._sharing.counters)

    def _families(self) -> list[Family]:
        """From another thread than Serve's."""
        engine = self._thread.call(self._engine.counters)
        return target_families(TargetCounters(engine, self._latencies, self._sharing.counters))

    async def check_health(self) -> None:
        self._thread.check()

    def __del__(self) -> None:  # the name that Serve calls in the end
        if hasattr(self, "_export"):
            self._export.stop()
        if hasattr(self, "_sharing"):
            self._sharing.stop()

    async def generate(
        self, requests: Sequence[GenerationRequest]
    ) -> AsyncGenerator[list[Emission] | Refusal, None]:
        """One item per round, with the emissions of all `requests`; or one refusal alone."""
        stopwatch = Stopwatch(self._latencies, time.monotonic())
        rounds = self._thread.generate(requests)
        try:
            for request in requests:
                self._check_names(request.speculation)
            async for emissions in rounds:
                stopwatch.note(emissions, time.monotonic())
                yield emissions
        except InvalidRequestError as error:
            yield Refusal("invalid", error.parameter, str(error))
        except CapacityError as error:
            yield Refusal("full", None, str(error))
        finally:
            await rounds.aclose()

    def _check_names(self, options: SpeculationOptions) -> None:
        configured = [drafter.name for drafter in self._config.drafters]
        for name in options.drafters or ():
            if name not in configured:
                raise InvalidRequestError("hedgerow.drafters", name, f"some of {configured}")
        selectors = sorted(self._settings.selectors)
        if options.selector is not None and options.selector not in selectors:
            raise InvalidRequestError(
                "hedgerow.selector", options.selector, f"one of {selectors}, or none"
            )
