"""What every system is asked: the same token ids, as many tokens each, in the same cells. Pure."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice

from benchmarks.prompts import DOMAINS

Ids = tuple[int, ...]
MIXED = "mixed"


@dataclass(frozen=True, slots=True)
class Job:
    """One request: `num_tokens` are answered, neither more nor fewer."""

    domain: str
    prompt_ids: Ids
    num_tokens: int


@dataclass(frozen=True, slots=True)
class Size:
    """How much to run. A cell of one domain has as many streams as `domain_streams`."""

    max_tokens: int
    rounds: int
    mixed: Mapping[int, int]  # streams -> requests
    domain_streams: int
    open_requests: int
    open_rate_per_s: float
    warm_requests: int


FULL = Size(48, 3, {1: 8, 8: 16, 32: 32}, 8, 12, 0.6, 16)
QUICK = Size(16, 1, {1: 4, 8: 8}, 0, 0, 0.0, 8)


@dataclass(frozen=True, slots=True)
class Cell:
    """Closed loop: `num_streams` clients, each with one request after the other.

    Open loop where there are `arrivals_s`: of each job, when it comes.
    """

    name: str
    jobs: tuple[Job, ...]
    num_streams: int
    arrivals_s: tuple[float, ...] = ()


def mixed(jobs: Mapping[str, Sequence[Job]]) -> list[Job]:
    """The domains in turns."""
    return list(chain.from_iterable(zip(*(jobs[domain] for domain in DOMAINS), strict=True)))


def cells(jobs: Mapping[str, Sequence[Job]], size: Size) -> list[Cell]:
    """The names are what follows `system/mode/` in the results."""
    together = mixed(jobs)
    found = [Cell(str(n), tuple(together[:num]), n) for n, num in size.mixed.items()]
    if size.domain_streams:
        for domain in DOMAINS:
            own = tuple(islice(jobs[domain], size.domain_streams))
            found.append(Cell(f"{size.domain_streams}/{domain}", own, size.domain_streams))
    if size.open_requests:
        asked = tuple(together[: size.open_requests])
        times = arrivals_s(len(asked), size.open_rate_per_s, seed=0)
        found.append(Cell("open", asked, len(asked), times))
    return found


def arrivals_s(number: int, rate_per_s: float, seed: int) -> tuple[float, ...]:
    """A Poisson process: the same for the same seed."""
    rng, at_s, times = random.Random(seed), 0.0, []
    for _ in range(number):
        at_s += rng.expovariate(rate_per_s)
        times.append(at_s)
    return tuple(times)


def common_tokens(text: str, expected: Sequence[str]) -> int:
    """How many of the expected answer's tokens, given as their texts, `text` begins with."""
    place = 0
    for i, token in enumerate(expected):
        if not text.startswith(token, place):
            return i
        place += len(token)
    return len(expected)
