"""Goes on with an answer at another target when its own dies, falls silent or leaves.

No token is lost, doubled or changed (`deployments.progress`). In the same way an answer that its
client does not take is put down, and taken up again where it was: a slow client holds no cache.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing, suppress
from typing import Any

from cluster.settings import Resume
from deployments.progress import Progress, attempt_id
from deployments.refusal import Refusal, RefusedError
from deployments.route import ANYWHERE, Route
from deployments.target_client import AnswerSource, TargetFailedError
from engine.request import Emission, GenerationRequest

_LOG = logging.getLogger("hedgerow.resume")
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 1.0


class ResumingClient:
    """A source of answers over one that may lose targets. `settings` may be replaced any time."""

    def __init__(self, source: AnswerSource, settings: Resume) -> None:
        self._source = source
        self.settings = settings

    async def generate(
        self, requests: Sequence[GenerationRequest], route: Route = ANYWHERE
    ) -> AsyncGenerator[list[Emission], None]:
        """Emissions alone: nothing is said while nothing comes."""
        relay = _Relay(self._source, requests, route, self.settings)
        pump = asyncio.ensure_future(relay.pump())
        try:
            while emissions := await relay.next(pump):
                yield emissions
        finally:
            pump.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await pump


class _Relay:
    """One call: a pump that fills a bounded buffer, and a reader that empties it."""

    def __init__(
        self,
        target: AnswerSource,
        requests: Sequence[GenerationRequest],
        route: Route,
        settings: Resume,
    ) -> None:
        self._target = target
        self._route = route
        self._settings = settings
        self._progress = {request.sequence_id: Progress(request) for request in requests}
        self._buffer: deque[list[Emission]] = deque()
        self._num_buffered = 0  # tokens
        self._changed = asyncio.Event()
        self._num_attempts = self._num_moves = self._num_losses = 0
        self._is_taken = False  # by the target of this attempt
        self._was_taken = False  # by any
        self._was_refused = False  # by a full one, before any had taken it

    async def next(self, pump: asyncio.Future[None]) -> list[Emission]:
        """One round's emissions; none when all is said. Raises what ended the pump."""
        while not self._buffer:
            if pump.done():
                pump.result()
                return []
            self._changed.clear()
            waiting = asyncio.ensure_future(self._changed.wait())
            both: set[asyncio.Future[Any]] = {waiting, pump}
            try:
                await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            finally:
                waiting.cancel()
        emissions = self._buffer.popleft()
        self._num_buffered -= _num_tokens(emissions)
        self._changed.set()
        return emissions

    async def pump(self) -> None:
        """Ends when every sequence is finished, or raises why they cannot be."""
        pause_s = _FIRST_PAUSE_S
        while unfinished := [each for each in self._progress.values() if not each.is_finished]:
            try:
                await self._attempt(unfinished)
            except RefusedError as error:
                if not self._asks_another(error.refusal):
                    raise
                self._num_moves += 1
                if not self._was_taken:  # whoever is refused hears it at once
                    continue
            except Exception as error:
                self._note_loss(error)
            else:
                await self._until_drained()
                continue
            pause_s = _FIRST_PAUSE_S if self._is_taken else min(2 * pause_s, _LONGEST_PAUSE_S)
            await asyncio.sleep(pause_s)

    def _asks_another(self, refusal: Refusal) -> bool:
        """What was taken waits for a place anywhere; what is new has a second chance elsewhere."""
        if refusal.kind != "full":
            return False
        is_first, self._was_refused = not self._was_refused, True
        return self._was_taken or (is_first and self._target.has_others)

    async def _attempt(self, unfinished: Sequence[Progress]) -> None:
        """Until all is said, or the buffer is full; raises when the target is lost."""
        number, self._is_taken = self._num_attempts, False
        self._num_attempts += 1
        requests = [each.remaining(number) for each in unfinished]
        names = {attempt_id(name, number): name for name in self._progress}
        async with aclosing(self._target.generate(requests, self._here)) as rounds:
            while not all(each.is_finished for each in unfinished):
                async with asyncio.timeout(self._settings.stall_timeout_s):
                    emissions = await anext(rounds)
                self._is_taken = self._was_taken = True
                self._put([self._progress[names[e.sequence_id]].add(e) for e in emissions])
                if self._num_buffered >= self._settings.max_buffered_tokens:
                    return

    @property
    def _here(self) -> Route:
        return Route(self._route.session, self._route.attempt + self._num_moves)

    def _put(self, emissions: list[Emission]) -> None:
        if emissions:
            self._buffer.append(emissions)
            self._num_buffered += _num_tokens(emissions)
            self._changed.set()

    def _note_loss(self, error: Exception) -> None:
        """A target that had taken it, or answers with an error, counts; one not there may come."""
        if not self._num_moves:  # once: while there is no target it is tried often
            _LOG.warning("an answer lost its target: %s", type(error).__name__)
        if isinstance(error, TimeoutError):
            self._target.suspect(self._here)
        self._num_moves += 1
        self._num_losses += self._is_taken or isinstance(error, TargetFailedError)
        if self._num_losses > self._settings.max_losses:
            raise error

    async def _until_drained(self) -> None:
        while 2 * self._num_buffered > self._settings.max_buffered_tokens:
            self._changed.clear()
            await self._changed.wait()


def _num_tokens(emissions: Sequence[Emission]) -> int:
    return sum(len(emission.token_ids) for emission in emissions)
