"""A target replica: one copy of the model on one device, stepped by one thread.

What crosses its handle is plain data. Its settings change live; a failed engine fails the health
check, and Serve starts another replica.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.config import ClusterConfig, TargetSection
from cluster.drafter_changes import DrafterChange, DrafterChangeError, EnableDrafter
from cluster.settings import TargetSettings
from deployments.drafter_changer import DrafterChanger
from deployments.drafter_watch import DrafterWatch
from deployments.engine_thread import EngineThread
from deployments.hosts import Hosts
from deployments.latencies import Latencies, Stopwatch
from deployments.live_drafters import engine_config
from deployments.metric_families import Family, target_families
from deployments.metrics_export import ExportThread, RayInstruments
from deployments.model_card import ModelCard, fingerprint
from deployments.refusal import Refusal
from deployments.router_store import Unreachable
from deployments.selector_report import report_selectors
from deployments.selectors import Selectors
from deployments.sharing import Sharing
from deployments.target_counters import TargetCounters
from deployments.target_drafters import TargetDrafters
from engine.config import TargetConfig
from engine.drafters.drafter import Drafter
from engine.errors import CapacityError, InvalidRequestError
from engine.request import Emission, GenerationRequest, SpeculationOptions

if TYPE_CHECKING:
    from engine.engine import Engine
PULSE_S = 1.0
"""How often who waits for a target hears of it; an ingress takes a longer silence for its end."""


class Target:
    """Serves `config["target"]` with `config["drafters"]`; loads for seconds, then answers.

    `router` is the Serve handle of the deployment Router, `hosts` are those of the deployments of
    `config["hosts"]`, by name.
    """

    def __init__(self, config: Mapping[str, object], router: Any, hosts: Mapping[str, Any]) -> None:
        from engine.build import (  # loads torch, which only this process may
            build_drafter,
            build_engine_on,
            load_target,
        )

        self._config = ClusterConfig.model_validate(config)
        section = self._config.target
        here = map(engine_config, self._config.drafters_at(None))
        target = load_target(TargetConfig(**section.model_dump()), here)
        self._hosts = Hosts(self._config, target.folder, hosts)
        self._drafters = TargetDrafters(
            self._config,
            self._hosts,
            lambda added: build_drafter(engine_config(added), target),
            lambda drafters: self._thread.call(lambda: self._use_drafters(drafters)),
        )
        self._engine = build_engine_on(target, self._drafters.first)
        self._card = _card(section, target.folder, self._engine)
        self._latencies = Latencies()
        self._settings = TargetSettings()
        self._selectors = Selectors(_longest(self._drafters.first), self._engine.costs)
        self._engine.use_selectors(*self._selectors.build(self._settings))
        self._thread = EngineThread(self._engine, PULSE_S)
        self._sharing = Sharing(self._config, router, self._thread)
        self._sharing.start(self._selectors.shared)
        self._changer = DrafterChanger(router, fingerprint(target.folder))
        self._watch = DrafterWatch(self._changer, self._drafters.follow)
        self._export = ExportThread(self._families, RayInstruments())

    async def reconfigure(self, user_config: Mapping[str, object]) -> None:
        """Applies new settings between two rounds; wrong ones are refused and change nothing."""
        settings = TargetSettings.model_validate(user_config)
        for path, drafter in settings.unknown_drafters(self._config):
            raise ValueError(f"{path}: {drafter!r} is no configured drafter")
        await self._thread.run(lambda: self._use_settings(settings))

    def _use_settings(self, settings: TargetSettings) -> None:
        """On the engine's thread, as all that touches the selectors."""
        self._engine.use_selectors(*self._selectors.build(settings))
        self._engine.disable({*settings.disabled, *self._drafters.disabled})
        self._sharing.follow(self._selectors.shared)
        self._settings = settings

    def _use_drafters(self, drafters: Sequence[Drafter]) -> None:
        """On the engine's thread."""
        self._engine.use_drafters(drafters)
        self._engine.disable({*self._settings.disabled, *self._drafters.disabled})
        self._hosts.keep(self._drafters.config.drafters)
        self._selectors.use_drafters(_longest(drafters))
        self._sharing.follow(self._selectors.shared)

    async def change_drafters(
        self, change: DrafterChange
    ) -> DrafterChangeError | Unreachable | None:
        """What is wrong with it; None if it is on its way to all targets and hosts."""
        fixed = [EnableDrafter(name, True) for name in self._settings.disabled]
        if isinstance(change, EnableDrafter) and change in fixed:
            message = f"{change.name!r} is disabled in user_config, which is to be changed"
            return DrafterChangeError("conflict", message)
        return await self._changer.change(change)

    async def describe(self) -> ModelCard:
        """For health too: a failed engine does not answer."""
        self._thread.check()
        return self._card

    async def selectors(self) -> dict[str, Any]:
        """Who chooses, and from what, as JSON has it."""
        return await self._thread.run(
            lambda: report_selectors(self._settings, self._selectors.built, self._engine.counters())
        )

    async def counters(self) -> TargetCounters:
        engine = await self._thread.run(self._engine.counters)
        sharing = self._sharing.counters
        return TargetCounters(engine, self._latencies, sharing, self._drafters.notes)

    def _families(self) -> list[Family]:
        """From another thread than Serve's."""
        engine = self._thread.call(self._engine.counters)
        found = TargetCounters(
            engine, self._latencies, self._sharing.counters, self._drafters.notes
        )
        return target_families(found)

    async def check_health(self) -> None:
        self._thread.check()

    def __del__(self) -> None:  # the name that Serve calls in the end
        if hasattr(self, "_watch"):
            self._watch.stop()
        if hasattr(self, "_export"):
            self._export.stop()
        if hasattr(self, "_sharing"):
            self._sharing.stop()

    async def generate(
        self, requests: Sequence[GenerationRequest]
    ) -> AsyncGenerator[list[Emission] | Refusal, None]:
        """One item per round, with the emissions of all `requests`; or one refusal alone.

        An item without emissions says that the requests are taken, and later that they are alive.
        """
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
        configured = self._drafters.names
        for name in options.drafters or ():
            if name not in configured:
                raise InvalidRequestError("hedgerow.drafters", name, f"some of {configured}")
        selectors = sorted(self._settings.selectors)
        if options.selector is not None and options.selector not in selectors:
            raise InvalidRequestError(
                "hedgerow.selector", options.selector, f"one of {selectors}, or none"
            )


def _card(section: TargetSection, folder: Path, engine: Engine) -> ModelCard:
    facts = [section.model, section.dtype, section.numerics, section.device]
    if section.quantization is not None:
        facts.append(section.quantization)
    return ModelCard(
        model=section.model,
        vocab_size=engine.vocab_size,
        max_sequence_length=engine.max_sequence_length,
        fingerprint=fingerprint(folder, *facts),
        created_s=int(time.time()),
    )


def _longest(drafters: Sequence[Drafter]) -> dict[str, int]:
    return {drafter.name: drafter.max_draft_length for drafter in drafters}
