"""What a host replica says of itself over its Serve handle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from deployments.sockets import Endpoint


@dataclass(frozen=True, slots=True)
class HostStatus:
    """Where it listens, the drafters that it has loaded, and why it could not load others."""

    endpoint: Endpoint
    loaded: frozenset[str]
    refused: Mapping[str, str]
