"""`python -m benchmarks.redis_failover`: the Redis with Sentinel of prod, its master killed.

Three Redis and three Sentinels on addresses of the loopback, started by the scripts of
k8s/components/redis-sentinel as their pods start them. The client that the router uses writes; the
master is killed, and comes back. Says how long writing failed, and that the old master follows the
new one. Then the password is changed as docs/operations.md says, one pod after the other. The last
line printed is one JSON object.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from benchmarks.fault_servers import free_port
from benchmarks.local_cluster import K8S, wait_for
from cluster.embedded_redis import find_server
from cluster.statistics.client import connect

HOSTS = ("127.0.0.1", "127.0.0.2", "127.0.0.3")
PASSWORD, NEXT_PASSWORD = "a-word-for-a-proof", "another-word"
SCRIPTS = ("start-replicated-redis.sh", "start-sentinel.sh")
DOWN_AFTER_MS = 5000  # as in the overlay
WAIT_S = 60.0


class Pods:
    """What each pod of the StatefulSet runs, with a folder for its volume."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.password = PASSWORD
        self._port, self._sentinel_port = free_port(), free_port()
        self._processes: dict[tuple[str, str], subprocess.Popen[bytes]] = {}
        self._scripts = folder / "scripts"
        self._scripts.mkdir()
        for script in (
            K8S / "base" / "start-redis.sh",
            K8S / "components" / "redis-sentinel" / "start-replicated-redis.sh",
            K8S / "components" / "redis-sentinel" / "start-sentinel.sh",
        ):
            shutil.copy(script, self._scripts)

    @property
    def url(self) -> str:
        places = ",".join(f"{host}:{self._sentinel_port}" for host in HOSTS)
        word = self.password
        return f"redis+sentinel://:{word}@{places}/statistics?sentinel_password={word}"

    def start(self, host: str, script: str) -> None:
        data = self._folder / host
        data.mkdir(exist_ok=True)
        with (data / f"{script}.log").open("ab") as log:
            self._processes[host, script] = subprocess.Popen(
                ["sh", str(self._scripts / script)],
                env={
                    "PATH": f"{find_server().parent}:{os.environ['PATH']}",
                    "PASSWORD": self.password,
                    "REDISCLI_AUTH": self.password,
                    "MAXMEMORY": "64mb",
                    "BIND": host,
                    "HOST": host,
                    "FIRST": HOSTS[0],
                    "SENTINELS": HOSTS[1],
                    "PORT": str(self._port),
                    "SENTINEL_PORT": str(self._sentinel_port),
                    "DATA": str(data),
                    "DOWN_AFTER_MS": str(DOWN_AFTER_MS),
                },
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    def kill(self, host: str, script: str) -> None:
        process = self._processes.pop((host, script))
        process.kill()
        process.wait()

    def close(self) -> None:
        for host, script in list(self._processes):
            self.kill(host, script)

    def role(self, host: str) -> str:
        with suppress(Exception), self._connected(host, self._port, self.password) as client:
            info: dict[str, Any] = client.info("replication")
            link = info.get("master_link_status", "")
            return f"{info['role']} {info.get('master_host', '')} {link}".strip()
        return "away"

    def takes_also(self, password: str) -> None:
        """Every Redis and every Sentinel, beside the one that it has."""
        for host in HOSTS:
            for port in (self._port, self._sentinel_port):
                with self._connected(host, port, self.password) as client:
                    client.execute_command("ACL", "SETUSER", "default", f">{password}")

    def takes(self, host: str, password: str) -> list[bool]:
        """Whether its Redis does, and its Sentinel."""
        found = []
        for port in (self._port, self._sentinel_port):
            found.append(False)
            with suppress(Exception), self._connected(host, port, password) as client:
                found[-1] = bool(client.ping())
        return found

    def _connected(self, host: str, port: int, password: str) -> Any:
        return connect(f"redis://:{password}@{host}:{port}", timeout_s=0.5)


def writes(client: Any) -> bool:
    with suppress(Exception):
        return bool(client.incr("count"))
    return False


def prove(pods: Pods) -> dict[str, Any]:
    for host in HOSTS:
        pods.start(host, "start-replicated-redis.sh")
    for host in HOSTS:
        pods.start(host, "start-sentinel.sh")
    client = connect(pods.url, timeout_s=0.5)
    wait_for(lambda: writes(client), WAIT_S, "the first write")
    follows = f"slave {HOSTS[0]} up"
    wait_for(lambda: [pods.role(h) for h in HOSTS[1:]] == [follows] * 2, WAIT_S, "replicas")
    time.sleep(3.0)  # the Sentinels find each other
    counted = int(str(client.get("count")))
    pods.kill(HOSTS[0], "start-replicated-redis.sh")
    without_s = wait_for(lambda: writes(client), WAIT_S, "a new master")
    kept = int(str(client.get("count"))) >= counted
    (master,) = (host for host in HOSTS if pods.role(host) == "master")
    pods.start(HOSTS[0], "start-replicated-redis.sh")
    is_back = f"slave {master} up"
    back_s = wait_for(lambda: pods.role(HOSTS[0]) == is_back, WAIT_S, "the old master")
    changed = change_password(pods, client)
    return {
        "seconds_without_master": without_s,
        "kept": kept,
        "is_another": master != HOSTS[0],
        "old_master_follows_s": back_s,
        "one_master": sum(pods.role(host) == "master" for host in HOSTS) == 1,
        **changed,
    }


def change_password(pods: Pods, client: Any) -> dict[str, Any]:
    """Both are taken, then pod after pod starts with the new one alone, the last one first."""
    counted, started_s = int(str(client.get("count"))), time.monotonic()
    pods.takes_also(NEXT_PASSWORD)
    pods.password, goes_on = NEXT_PASSWORD, writes(client)
    with connect(pods.url, timeout_s=0.5) as later:
        for host in reversed(HOSTS):
            for script in SCRIPTS:
                pods.kill(host, script)
            for script in SCRIPTS:
                pods.start(host, script)
            wait_for(lambda: is_whole(pods), WAIT_S, f"a master and two replicas after {host}")
            wait_for(lambda: writes(later), WAIT_S, f"a write after {host}")
        return {
            "new_password_beside_the_old": goes_on,
            "new_password_s": time.monotonic() - started_s,
            "new_password_is_taken": all(all(pods.takes(h, NEXT_PASSWORD)) for h in HOSTS),
            "old_password_is_refused": not any(any(pods.takes(h, PASSWORD)) for h in HOSTS),
            "kept_with_new_password": int(str(later.get("count"))) >= counted,
        }


def is_whole(pods: Pods) -> bool:
    roles = sorted(pods.role(host) for host in HOSTS)
    is_linked = all(role.startswith("slave") and role.endswith(" up") for role in roles[1:])
    return roles[0] == "master" and is_linked


def main() -> int:
    folder = Path(tempfile.mkdtemp(prefix="hs-"))
    pods = Pods(folder)
    try:
        found = prove(pods)
    finally:
        pods.close()
    shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(found))
    return 0 if all(value is not False for value in found.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
