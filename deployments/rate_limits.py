"""Limits in OpenAI's words: `x-ratelimit-*` headers, and the refusal of a request over a limit."""

from __future__ import annotations

import math

from cluster.limits.limiter import Quota, Verdict
from deployments.errors import ApiError

_WORDS = {
    "requests": "the limit of {most} requests a minute is reached",
    "tokens": "the limit of {most} tokens a minute is reached",
    "sequences": "the limit of {most} choices at once is reached",
}


class OverLimitError(ApiError):
    """429: may be tried again, and says when."""

    def __init__(self, quota: Quota, verdict: Verdict) -> None:
        assert verdict.refused_by is not None
        most = {
            "requests": quota.requests_per_min,
            "tokens": quota.tokens_per_min,
            "sequences": quota.max_sequences,
        }[verdict.refused_by]
        reason = _WORDS[verdict.refused_by].format(most=most)
        message = f"{reason}; try again in {verdict.wait_s:.3g} s"
        wait_s = max(1, math.ceil(verdict.wait_s))
        super().__init__(429, message, None, "rate_limit_exceeded", retry_after_s=wait_s)
        self._limits = rate_headers(quota, verdict)

    @property
    def headers(self) -> dict[str, str]:
        return super().headers | self._limits


def rate_headers(quota: Quota, verdict: Verdict) -> dict[str, str]:
    """Of each limit of a minute that the tenant has: its size, what is left, when it is full."""
    limits = {
        "requests": (quota.requests_per_min, verdict.num_requests_left),
        "tokens": (quota.tokens_per_min, verdict.num_tokens_left),
    }
    headers = {}
    for name, (per_min, left) in limits.items():
        if per_min is not None and left is not None:
            headers[f"x-ratelimit-limit-{name}"] = str(per_min)
            headers[f"x-ratelimit-remaining-{name}"] = str(left)
            headers[f"x-ratelimit-reset-{name}"] = duration((per_min - left) * 60 / per_min)
    return headers


def duration(seconds: float) -> str:
    """Such as `6m0s`, `1.5s` and `20ms`, as OpenAI writes them."""
    whole_ms = math.ceil(seconds * 1000)
    minutes, rest_ms = divmod(whole_ms, 60_000)
    if minutes:
        return f"{minutes}m{rest_ms // 1000}s"
    return f"{rest_ms}ms" if rest_ms < 1000 else f"{rest_ms / 1000:g}s"
