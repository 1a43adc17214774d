"""Whose a request is: its API key, looked up in the tenants' store and remembered for a while."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

from cluster.statistics.breaker import Breaker
from cluster.tenants.api_key import ApiKey, parse_key
from cluster.tenants.directory import Directory, Known
from cluster.tenants.store import KeyFinder, TenantStoreError
from cluster.tenants.tenant import Tenant
from deployments.errors import ApiError

NUM_THREADS = 4
MAX_ASKING = 256  # keys; more at once are nobody's clients
PAUSES_S = (0.1, 0.2, 0.4, 0.8, 1.5)
_SCHEME = b"bearer "
Headers = Iterable[tuple[bytes, bytes]]


class _CrowdError(TenantStoreError):
    """More keys are being looked up than clients have."""


class Authentication:
    """For one event loop. Asks the store in threads, and once for any number of requests."""

    def __init__(
        self,
        finder: KeyFinder,
        clock: Callable[[], float] = time.monotonic,
        pauses_s: Sequence[float] = PAUSES_S,
    ) -> None:
        """`pauses_s` lie between the questions about a key of which nothing is known."""
        self._pauses_s = pauses_s
        self._directory = Directory(finder, clock, Breaker(clock, random.random))
        self._threads = ThreadPoolExecutor(NUM_THREADS, "tenants")
        self._asking: dict[str, asyncio.Future[Known]] = {}

    async def tenant_of(self, headers: Headers) -> Tenant:
        """Raises ApiError 401 without a key that is known, 503 if it cannot be looked up now."""
        key = _key_in(headers)
        known = self._directory.recall(key.key_id) or await self._look_up(key.key_id)
        tenant = known.tenant_of(key)
        if tenant is None:
            raise _unauthorized("the API key is not known")
        return tenant

    def close(self) -> None:
        self._threads.shutdown(wait=False)

    async def _look_up(self, key_id: str) -> Known:
        """What the store says, or else what was known before. Raises ApiError 503 if nothing was.

        A replica that has just started knows nothing, and its Redis may be starting too.
        """
        pauses_s = iter(self._pauses_s)
        while True:
            try:
                return await self._ask(key_id)
            except TenantStoreError as error:
                if known := self._directory.fall_back(key_id):
                    return known
                pause_s = None if isinstance(error, _CrowdError) else next(pauses_s, None)
                if pause_s is None:
                    message = "API keys cannot be looked up at the moment"
                    raise ApiError(503, message, None, "keys_unavailable", 1) from error
                await asyncio.sleep(pause_s)

    async def _ask(self, key_id: str) -> Known:
        """Raises TenantStoreError."""
        asking = self._asking.get(key_id)
        if asking is None:
            if len(self._asking) >= MAX_ASKING:
                raise _CrowdError
            loop = asyncio.get_running_loop()
            asking = loop.run_in_executor(self._threads, self._directory.ask, key_id)
            self._asking[key_id] = asking
            asking.add_done_callback(lambda done: self._note(key_id, done))
        return await asyncio.shield(asking)

    def _note(self, key_id: str, done: asyncio.Future[Known]) -> None:
        self._asking.pop(key_id, None)
        if not done.cancelled() and done.exception() is None:
            self._directory.learn(key_id, done.result())


def _key_in(headers: Headers) -> ApiKey:
    given = [value for name, value in headers if name == b"authorization"]
    if not given:
        raise _unauthorized("an API key is needed, as in 'Authorization: Bearer hr-...'")
    (value, *others) = given
    key = None
    if not others and value[: len(_SCHEME)].lower() == _SCHEME:
        key = parse_key(value[len(_SCHEME) :].strip().decode("ascii", errors="replace"))
    if key is None:
        raise _unauthorized("the API key is not known")
    return key


def _unauthorized(message: str) -> ApiError:
    """Never with the key: messages are logged by clients."""
    return ApiError(401, message, None, "invalid_api_key")
