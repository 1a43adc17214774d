"""A checked configuration, with the command line's host and port in it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.check import check_file
from cluster.serve_options import HttpOptions
from cluster.yaml_file import read_yaml
from deployments.preflight import PreflightError

_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}
_DEFAULTS = HttpOptions()


@dataclass(frozen=True, slots=True)
class Plan:
    """`document` is a Ray Serve config file's, with `http_options.host` and `port`."""

    document: dict[str, Any]

    @property
    def host(self) -> str:
        host: str = self.document["http_options"]["host"]
        return host

    @property
    def port(self) -> int:
        port: int = self.document["http_options"]["port"]
        return port

    @property
    def model(self) -> str:
        args = self.document["applications"][0].get("args") or {}
        model: str = (args.get("target") or {}).get("model", "smollm2-135m-instruct")
        return model

    @property
    def url(self) -> str:
        host = _EVERYWHERE.get(self.host, self.host)
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"


def read_plan(config: Path, host: str | None, port: int | None) -> Plan:
    """Raises PreflightError with everything that is wrong in the file."""
    problems = check_file(config)
    if problems:
        raise PreflightError("\n".join(f"{config}: {problem}" for problem in problems))
    document: Any = read_yaml(config)
    http = document.get("http_options", {})
    document["http_options"] = {
        **http,
        "host": http.get("host", _DEFAULTS.host) if host is None else host,
        "port": http.get("port", _DEFAULTS.port) if port is None else port,
    }
    return Plan(document)
