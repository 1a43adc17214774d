"""The way to one Redis: that of a URL, else a private server that is kept running."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from pathlib import Path

from redis import Redis, RedisError

from cluster.embedded_redis import EmbeddedRedis, EmbeddedRedisError, state_folder
from cluster.statistics.client import connect

logger = logging.getLogger(__name__)

CHECK_S = 0.5
RETRY_S = 5.0


class NoServerError(Exception):
    """There is no server at present; the message says why."""


class RedisConnection:
    """For any number of threads. Raises UrlError if `url` cannot be used.

    Without a URL there is a private server in the state folder: whoever comes first owns it, and
    if it ends, or cannot be started, a thread of this starts it again. `purpose` is for the log.
    """

    def __init__(self, url: str | None, environ: Mapping[str, str], purpose: str) -> None:
        self._client: Redis | None = None
        self._reason = "the private server is starting"
        self._purpose = purpose
        self._stopping = threading.Event()
        self._keeper: threading.Thread | None = None
        if url:
            self._client = connect(url)
        else:
            folder = state_folder(environ)
            self._keeper = threading.Thread(target=self._keep, args=(folder,), daemon=True)
            self._keeper.start()

    @property
    def client(self) -> Redis:
        """The present one; another after the private server was started again."""
        client = self._client
        if client is None:
            raise NoServerError(self._reason)
        return client

    def close(self) -> None:
        """Ends the private server, its data kept."""
        self._stopping.set()
        if self._keeper is not None:
            self._keeper.join()

    def _keep(self, folder: Path) -> None:
        while not self._stopping.is_set():
            try:
                with EmbeddedRedis(folder) as server:
                    self._client = connect(server.url)
                    while server.is_up and not self._stopping.wait(CHECK_S):
                        pass
                    self._client, reason = None, "the private server has ended"
                pause_s = 0.0
            except (EmbeddedRedisError, RedisError, OSError) as error:
                reason, pause_s = str(error), RETRY_S
            if reason != self._reason and not self._stopping.is_set():
                logger.warning("%s: %s", self._purpose, reason)
            self._reason = reason
            self._stopping.wait(pause_s)
