"""What Serve says of its application, over the REST API of Ray's dashboard."""

from __future__ import annotations

import http.client
import json
import re
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

FAILED = ("DEPLOY_FAILED", "UNHEALTHY")
DASHBOARD = re.compile(r"View the dashboard at [^\n]*?(http://[^\s\x1b]+)")
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # loopback: no proxy


@dataclass(frozen=True, slots=True)
class ServeStatus:
    """`state` is Serve's word, such as DEPLOYING; `message` one line of what it says of it."""

    state: str = ""
    message: str = ""

    @property
    def is_unknown(self) -> bool:
        return not self.state

    @property
    def is_failed(self) -> bool:
        return self.state in FAILED


def read_status(log: str, token: str) -> ServeStatus:
    """`log` is that of `serve run`, which names the address; unknown while nobody answers there."""
    found = DASHBOARD.search(log)
    if found is None:
        return ServeStatus()
    request = urllib.request.Request(
        f"{found[1]}/api/serve/applications/", headers={"Authorization": f"Bearer {token}"}
    )
    try:
        with DIRECT.open(request, timeout=5) as answer:
            applications = json.load(answer)["applications"]
        return next(map(_status_of, applications.values()), ServeStatus())
    except (OSError, http.client.HTTPException, ValueError, LookupError, TypeError, AttributeError):
        return ServeStatus()


def _status_of(application: Mapping[str, Any]) -> ServeStatus:
    messages = [application["message"], *_messages_of(application["deployments"])]
    return ServeStatus(application["status"], "; ".join(filter(None, map(_one_line, messages))))


def _messages_of(deployments: Mapping[str, Any]) -> Iterator[str]:
    for name, deployment in deployments.items():
        if deployment["status"] != "HEALTHY":
            yield f"{name} is {deployment['status']} {deployment['message']}"


def _one_line(text: str) -> str:
    """The first line, and the last one, which of a traceback is the error."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return " ".join(dict.fromkeys((*lines[:1], *lines[-1:])))
