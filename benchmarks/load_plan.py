"""Who asks for what and when: tenants with rates, domains, bursts and bad habits. Pure."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from benchmarks.prompts import DOMAINS, Prompt, load_prompts


class PlanError(Exception):
    """A plan that cannot be carried out; says why."""


@dataclass(frozen=True, slots=True)
class Burst:
    """For `for_s` of every `every_s` seconds the rate is `times` as high."""

    every_s: float = 20.0
    for_s: float = 2.0
    times: float = 1.0


@dataclass(frozen=True, slots=True)
class TenantLoad:
    """Requests arrive at `rate_per_s`, whether or not earlier ones have been answered.

    `domains` weighs the prompt sets; `stream`, `cancel` and `slow` are the shares of requests that
    stream, that hang up in the middle, and that read slowly. `weight` is for Jain's index.
    """

    name: str
    rate_per_s: float = 1.0
    key: str = field(default="", repr=False)
    domains: Mapping[str, float] = field(default_factory=lambda: dict.fromkeys(DOMAINS, 1.0))
    max_tokens: int = 64
    temperature: float = 0.0
    stream: float = 1.0
    cancel: float = 0.0
    slow: float = 0.0
    weight: float = 1.0
    burst: Burst = Burst()

    def __post_init__(self) -> None:
        for name in ("stream", "cancel", "slow"):
            if not 0 <= getattr(self, name) <= 1:
                raise PlanError(f"{self.name}: {name} {getattr(self, name)}: expected 0 to 1")
        unknown = sorted(set(self.domains) - set(DOMAINS))
        if unknown or sum(self.domains.values()) <= 0:
            raise PlanError(f"{self.name}: domains {unknown}: expected some of {list(DOMAINS)}")
        if not (self.rate_per_s > 0 and self.max_tokens >= 1 and self.burst.every_s > 0):
            raise PlanError(f"{self.name}: rate_per_s, max_tokens and every_s must be more than 0")


@dataclass(frozen=True, slots=True)
class Request:
    """What a client does `at_s` after the start."""

    tenant: TenantLoad
    at_s: float
    prompt: Prompt
    streams: bool
    is_slow: bool
    hangs_up_after: int | None  # chunks


def requests(tenant: TenantLoad, duration_s: float, seed: int) -> Iterator[Request]:
    """A Poisson process, thinned where there is no burst; the same for the same seed."""
    rng = random.Random(f"{seed}:{tenant.name}")
    names = list(tenant.domains)
    prompts = {name: load_prompts(name) for name in names}
    peak_per_s = tenant.rate_per_s * max(1.0, tenant.burst.times)
    at_s = rng.expovariate(peak_per_s)
    while at_s < duration_s:
        times = tenant.burst.times if at_s % tenant.burst.every_s < tenant.burst.for_s else 1.0
        domain = rng.choices(names, [tenant.domains[name] for name in names])[0]
        request = Request(
            tenant=tenant,
            at_s=at_s,
            prompt=rng.choice(prompts[domain]),
            streams=rng.random() < tenant.stream,
            is_slow=rng.random() < tenant.slow,
            hangs_up_after=rng.randint(1, 20) if rng.random() < tenant.cancel else None,
        )
        if rng.random() < tenant.rate_per_s * times / peak_per_s:
            yield request
        at_s += rng.expovariate(peak_per_s)


_CODER = TenantLoad("coder", domains={"code": 3, "edit": 1})
_TALKER = TenantLoad("talker", domains={"chat": 3, "math": 1})
SCENARIOS: dict[str, tuple[TenantLoad, ...]] = {
    "steady": (_CODER, _TALKER),
    "bursts": (_CODER, replace(_TALKER, burst=Burst(10.0, 1.0, 8.0))),
    "greedy": (_CODER, replace(_TALKER, name="greedy", rate_per_s=20.0)),
    "cancels": (_CODER, replace(_TALKER, name="leaver", cancel=0.5)),
    "slow": (_CODER, replace(_TALKER, name="slow", slow=1.0)),
}


def scaled(tenants: tuple[TenantLoad, ...], factor: float) -> tuple[TenantLoad, ...]:
    """The same at `factor` times the rates."""
    return tuple(replace(each, rate_per_s=each.rate_per_s * factor) for each in tenants)


def parse_tenants(document: object) -> tuple[TenantLoad, ...]:
    """From a list of mappings with the fields' names. Raises PlanError."""
    if not isinstance(document, list) or not document:
        raise PlanError("expected a list of tenants")
    found = tuple(_tenant(each) for each in document)
    if len({each.name for each in found}) != len(found):
        raise PlanError("two tenants have one name")
    return found


def _tenant(given: Any) -> TenantLoad:
    if not isinstance(given, dict) or not isinstance(given.get("name"), str):
        raise PlanError(f"{given!r}: expected a mapping with a name")
    _check_keys(given, TenantLoad, given["name"])
    burst = given.get("burst", {})
    _check_keys(burst, Burst, f"{given['name']}: burst")
    return TenantLoad(**{**given, "burst": Burst(**burst)})


def _check_keys(given: Any, kind: type[Any], place: str) -> None:
    allowed = [each.name for each in fields(kind)]
    unknown = sorted(set(given) - set(allowed))
    if unknown:
        raise PlanError(f"{place}: unknown key {unknown[0]!r}; allowed: {', '.join(allowed)}")
