"""What each tenant asked of this ingress, for metrics: requests, refusals, prompt tokens.

Only of tenants whose key was good, and of few of them apart. The tokens that they got are counted
at the targets.
"""

from __future__ import annotations

from collections import Counter

from deployments.metric_families import Family, Labels, ingress_families
from engine.usage import MAX_TENANTS, OTHER_TENANTS

USUAL_REASONS = ("rate_limit_exceeded", "overloaded")
"""Shown as 0 until they occur, so that Prometheus sees the first."""


class TenantCounts:
    """Since this replica started. `families` may be called from any thread."""

    def __init__(self) -> None:
        self._num_requests: Counter[Labels] = Counter()
        self._num_refused: Counter[Labels] = Counter()
        self._num_prompt_tokens: Counter[Labels] = Counter()

    def ask(self, tenant: str) -> None:
        """One more request for an answer, whatever becomes of it."""
        name = self._label(tenant)
        if (name,) not in self._num_requests:
            self._num_prompt_tokens[name,] += 0
            self._num_refused.update({(name, reason): 0 for reason in USUAL_REASONS})
        self._num_requests[name,] += 1

    def refuse(self, tenant: str, reason: str) -> None:
        """`reason` is an error's code, of which there are few, and none from a request."""
        self._num_refused[self._label(tenant), reason] += 1

    def use(self, tenant: str, num_prompt_tokens: int) -> None:
        self._num_prompt_tokens[self._label(tenant),] += num_prompt_tokens

    def families(self) -> list[Family]:
        counts = self._num_requests, self._num_refused, self._num_prompt_tokens
        return ingress_families(*map(dict, counts))

    def _label(self, tenant: str) -> str:
        is_apart = (tenant,) in self._num_requests or len(self._num_requests) < MAX_TENANTS
        return tenant if is_apart else OTHER_TENANTS
