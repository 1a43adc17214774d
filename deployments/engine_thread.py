"""Drives an engine on its one thread, and hands what it emits to the event loop.

The event loop never waits for a forward pass: it sends commands, which run between two rounds,
and reads queues. A failed engine fails all its streams and every later call.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections import Counter, deque
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import Protocol, TypeVar

from deployments.thread_priority import give_way
from engine.request import Emission, GenerationRequest

T = TypeVar("T")
_LOG = logging.getLogger("hedgerow.engine")
_CALL_CHECK_S = 1.0  # how soon a caller finds out that the thread has ended


class SteppedEngine(Protocol):
    """What the thread needs of an engine."""

    def submit(self, request: GenerationRequest) -> None: ...

    def check_room(self, tenant: str, num_coming: int = 0) -> None: ...

    def cancel(self, sequence_id: str) -> None: ...

    def step(self) -> list[Emission]: ...

    @property
    def has_work(self) -> bool: ...


class EngineStoppedError(Exception):
    """The engine failed or was stopped; nothing more comes from it."""


class _Stream:
    """Carries the emissions of one call from the engine's thread to the caller's event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._ready = asyncio.Event()
        self._rounds: deque[list[Emission]] = deque()
        self._failure: str | None = None

    def put(self, emissions: list[Emission]) -> None:
        """From the engine's thread."""
        self._rounds.append(emissions)
        self._wake()

    def fail(self, reason: str) -> None:
        """From the engine's thread: nothing more comes."""
        self._failure = reason
        self._wake()

    async def next(self, wait_s: float | None) -> list[Emission]:
        """One round's emissions; several rounds' where the reader lags, none after `wait_s`."""
        while True:
            try:
                async with asyncio.timeout(wait_s):
                    await self._ready.wait()
            except TimeoutError:
                return []
            failure = self._failure
            if failure is None:
                self._ready.clear()
            waiting = range(len(self._rounds))  # the engine may add rounds faster than we take them
            emissions = [emission for _ in waiting for emission in self._rounds.popleft()]
            if emissions:
                return emissions
            if failure is not None:
                raise EngineStoppedError(failure)

    def _wake(self) -> None:
        with suppress(RuntimeError):  # a closed loop has no reader left
            self._loop.call_soon_threadsafe(self._ready.set)


class EngineThread:
    """Owns `engine` from here on: nobody else may touch it.

    With `pulse_s` who waits for tokens hears so often that the thread is alive.
    """

    def __init__(self, engine: SteppedEngine, pulse_s: float | None = None) -> None:
        self._engine = engine
        self._pulse_s = pulse_s
        self._num_turns = 0
        self._num_coming: Counter[str] = Counter()  # by tenant; submitted after the running round
        self._counting = threading.Lock()
        self._commands: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._streams: dict[str, _Stream] = {}
        self._stopping = False
        self._failure: str | None = None
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raises EngineStoppedError if nothing more can come; always a new one, as each raise
        lengthens an error's traceback."""
        if self._failure is not None:
            raise EngineStoppedError(self._failure)

    async def run(self, function: Callable[[], T]) -> T:
        """The result of `function`, run on the engine's thread between two rounds."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()

        def settle(outcome: Callable[[], None]) -> None:
            if not future.done():
                outcome()

        def command() -> None:
            try:
                self.check()
                outcome = partial(future.set_result, function())
            except Exception as error:
                outcome = partial(future.set_exception, error)
            with suppress(RuntimeError):  # the caller's loop is closed
                loop.call_soon_threadsafe(settle, outcome)

        if self._stopping:
            raise EngineStoppedError("the engine was stopped")
        self._commands.put(command)
        return await future

    def call(self, function: Callable[[], T], /) -> T:
        """As `run`, for another thread, which waits."""
        future: Future[T] = Future()

        def command() -> None:
            try:
                self.check()
                future.set_result(function())
            except Exception as error:
                future.set_exception(error)

        self._commands.put(command)
        while self._thread.is_alive():
            with suppress(TimeoutError):
                return future.result(_CALL_CHECK_S)
        raise EngineStoppedError("the engine was stopped")

    async def generate(
        self, requests: Sequence[GenerationRequest]
    ) -> AsyncGenerator[list[Emission], None]:
        """Emissions of all `requests`, round by round. Closing it frees what they hold.

        Raises what `Engine.submit` raises, and then none of the requests runs. With a pulse it
        says [] when it has taken the requests, and whenever rounds went by without a token of them.
        """
        stream = _Stream()
        live = {request.sequence_id for request in requests}
        try:
            await self._enter(requests, stream)
            if self._pulse_s is not None:
                yield []
            num_turns = self._num_turns
            while live:
                emissions = await stream.next(self._pulse_s)
                if not emissions and num_turns == self._num_turns:
                    continue  # the thread hangs, and silence tells that
                num_turns = self._num_turns
                live.difference_update(e.sequence_id for e in emissions if e.finish_reason)
                yield emissions
        finally:
            if live:
                self._commands.put(lambda: self._cancel(live))

    async def _enter(self, requests: Sequence[GenerationRequest], stream: _Stream) -> None:
        """Submits after the running round; a full queue refuses at once."""
        coming = Counter(request.tenant for request in requests)

        def submit() -> None:
            with self._counting:  # before the engine counts them, or they would count twice
                self._num_coming -= coming
            self._submit(requests, stream)

        with self._counting:
            for tenant in coming:
                self._engine.check_room(tenant, self._num_coming[tenant])
            self._num_coming += coming
        await self.run(submit)

    def stop(self) -> None:
        """Ends the thread after the running round; waits for it."""
        self._stopping = True
        self._commands.put(lambda: None)
        self._thread.join()

    def _submit(self, requests: Sequence[GenerationRequest], stream: _Stream) -> None:
        done: list[str] = []
        try:
            for request in requests:
                self._engine.submit(request)
                done.append(request.sequence_id)
                self._streams[request.sequence_id] = stream
        except Exception:
            self._cancel(done)
            raise

    def _cancel(self, sequence_ids: Iterable[str]) -> None:
        for sequence_id in sequence_ids:
            self._streams.pop(sequence_id, None)
            if self._failure is None:
                self._engine.cancel(sequence_id)

    def _run(self) -> None:
        give_way()
        while not self._stopping:
            self._num_turns += 1
            try:
                self._do_commands()
                if self._failure is None and self._engine.has_work:
                    self._deliver(self._engine.step())
            except Exception as error:
                _LOG.exception("the engine failed")
                self._fail(f"the engine failed: {type(error).__name__}")
        self._fail("the engine was stopped")

    def _do_commands(self) -> None:
        """All that wait; without other work, waits for one."""
        if self._failure is not None or not self._engine.has_work:
            self._commands.get()()
        while not self._commands.empty():
            self._commands.get()()

    def _deliver(self, emissions: Iterable[Emission]) -> None:
        rounds: dict[_Stream, list[Emission]] = {}
        for emission in emissions:
            stream = self._streams.get(emission.sequence_id)
            if stream is not None:
                rounds.setdefault(stream, []).append(emission)
            if emission.finish_reason is not None:
                self._streams.pop(emission.sequence_id, None)
        for stream, items in rounds.items():
            stream.put(items)

    def _fail(self, reason: str) -> None:
        self._failure = reason
        for stream in set(self._streams.values()):
            stream.fail(reason)
        self._streams.clear()
