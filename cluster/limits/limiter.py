"""The contract of every limiter: token buckets and leases of tenants, decided in one step.

A *bucket* holds at most what a minute allows and fills evenly; what is not there, and was never
asked for, is full. A *lease* is held while a request runs, for each of its sequences, and ends by
itself if it is not renewed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

Limit = Literal["requests", "tokens", "sequences"]
LEASE_S = 30.0
SEQUENCES_RETRY_S = 1.0
"""When a sequence ends is not known; then it may be tried again after this."""


class LimiterError(Exception):
    """The limiter did not answer, or not as it should; whether it did its work is unknown."""


@dataclass(frozen=True, slots=True)
class Quota:
    """What a tenant may have; None is no limit."""

    requests_per_min: int | None = None
    tokens_per_min: int | None = None
    max_sequences: int | None = None

    def shared_by(self, num_replicas: int) -> Quota:
        """One replica's part, at least 1."""
        whole = (self.requests_per_min, self.tokens_per_min, self.max_sequences)
        return Quota(*(None if n is None else max(1, n // num_replicas) for n in whole))


@dataclass(frozen=True, slots=True)
class Lease:
    """`num_sequences` of a tenant's, under an id that nobody else uses."""

    tenant: str
    lease_id: str
    num_sequences: int

    @property
    def members(self) -> list[str]:
        return [f"{self.lease_id}:{number}" for number in range(self.num_sequences)]


@dataclass(frozen=True, slots=True)
class Verdict:
    """`refused_by` None: taken, and charged. What is left is after that; None has no limit."""

    refused_by: Limit | None
    wait_s: float
    num_requests_left: int | None
    num_tokens_left: int | None


class Limiter(Protocol):
    """Every method raises LimiterError, and only that, if it cannot be reached."""

    def admit(self, lease: Lease, quota: Quota, num_tokens: int) -> Verdict:
        """Takes one request, its tokens and its lease; or nothing at all."""
        ...

    def settle(self, lease: Lease, quota: Quota, num_unused: int) -> None:
        """Ends the lease and gives unused tokens back; takes them if they are less than none."""
        ...

    def renew(self, replica_id: str, leases: Sequence[Lease]) -> int:
        """Prolongs leases. How many replicas have done so lately, this one included."""
        ...
