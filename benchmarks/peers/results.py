"""What a run found: figures by `system/mode/cell` and round, and the ratios taken of them. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.peers.answers import Figures, median_figures
from benchmarks.spread import Spread

OURS, ENGINE, AS_SERVED = "hedgerow", "hedgerow-engine", "hedgerow-bare"
HALF, HALF_WEIGHTS = "hedgerow-bfloat16", "hedgerow-float16"
QUANTISED = "llama-q4"
PLAIN, RULE, SURVIVAL = "plain", "rule", "survival"
COMPARED = ("1", "8")  # streams


def key_of(system: str, mode: str, cell: str) -> str:
    return f"{system}/{mode}/{cell}"


@dataclass(slots=True)
class Results:
    """`rounds[key][round]`. `seconds[key][round]` are those of each answer, where they are kept.

    `equal[key]` counts tokens (equal to the expected answer's, all), `left_out` says why.
    """

    rounds: dict[str, dict[int, Figures]] = field(default_factory=dict)
    seconds: dict[str, dict[int, list[float]]] = field(default_factory=dict)
    equal: dict[str, tuple[int, int]] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    def add(self, key: str, round_number: int, found: Figures) -> None:
        self.rounds.setdefault(key, {})[round_number] = found

    def add_equal(self, key: str, num_equal: int, num_tokens: int) -> None:
        before = self.equal.get(key, (0, 0))
        self.equal[key] = (before[0] + num_equal, before[1] + num_tokens)

    @property
    def medians(self) -> dict[str, Figures]:
        return {key: median_figures(list(found.values())) for key, found in self.rounds.items()}

    def speeds(self, key: str) -> dict[int, float]:
        """Tokens per second by round; none of what was not run."""
        return {i: found.tokens_per_s for i, found in self.rounds.get(key, {}).items()}

    def spread(self, key: str) -> Spread:
        return Spread.of(list(self.speeds(key).values()))

    def fastest(self, keys: Iterable[str]) -> str | None:
        """By the median; None where none was run."""
        there = [key for key in keys if key in self.rounds]
        return max(there, key=lambda key: self.spread(key).median, default=None)

    def equal_share(self, key: str) -> float | None:
        num_equal, num_tokens = self.equal.get(key, (0, 0))
        return num_equal / num_tokens if num_tokens else None


def ratio(above: Mapping[int, float], below: Mapping[int, float]) -> float | None:
    """The median over the rounds that have both."""
    pairs = [above[i] / below[i] for i in above if i in below]
    return statistics.median(pairs) if pairs else None


def hindsight(results: Results, arms: Sequence[str], lengths: Sequence[int]) -> dict[int, float]:
    """Tokens per second by round, each request by the arm that was best in the other rounds.

    With one round only the noise chooses along, so that the figure is then too high. Requests of
    these `lengths` follow each other one by one.
    """
    there = [results.seconds[arm] for arm in arms if arm in results.seconds]
    numbers = sorted(set.intersection(*map(set, there))) if there else []
    found = {}
    for number in numbers:
        others = [i for i in numbers if i != number] or [number]
        total_s = 0.0
        for request in range(len(lengths)):
            learnt = [sum(arm[i][request] for i in others) for arm in there]
            total_s += there[learnt.index(min(learnt))][number][request]
        found[number] = sum(lengths) / total_s
    return found


@dataclass(frozen=True, slots=True)
class Compared:
    """Which modes take part: of peers in the float32 class, of the quantised one, fixed arms."""

    peers: Mapping[str, Sequence[str]]
    quantised: Sequence[str]
    fixed: Sequence[str]
    lengths: Sequence[int]  # of the answers with one stream


def ratios(results: Results, compared: Compared) -> dict[str, float]:
    """All that can be taken of what was run; a name without streams is the worst of its kind."""
    found: dict[str, float | None] = {}
    for streams in COMPARED:
        found |= _against_peers(results, compared, streams)
        arms = [key_of(ENGINE, arm, streams) for arm in compared.fixed]
        survival = results.speeds(key_of(ENGINE, SURVIVAL, streams))
        best = results.fastest(arms)
        found[f"adaptive_vs_fixed/{streams}"] = ratio(survival, results.speeds(best or ""))
        rule = results.speeds(key_of(ENGINE, RULE, streams))
        found[f"vs_rule/{streams}"] = ratio(survival, rule)
    arms = [key_of(ENGINE, arm, "1") for arm in (PLAIN, *compared.fixed)]
    best_of_each = hindsight(results, arms, compared.lengths)
    found["vs_hindsight"] = ratio(results.speeds(key_of(ENGINE, SURVIVAL, "1")), best_of_each)
    found |= _against_plain(results)
    for mode in (PLAIN, SURVIVAL):
        served, bare = (results.speeds(key_of(name, mode, "8")) for name in (OURS, AS_SERVED))
        share = ratio(served, bare)
        found[f"http_overhead/{mode}"] = None if share is None else 1 - share
    known = {name: value for name, value in found.items() if value is not None}
    return _worst(known) | known


def _against_peers(results: Results, compared: Compared, streams: str) -> dict[str, float | None]:
    plain = [key_of(peer, PLAIN, streams) for peer in compared.peers]
    every = [key_of(p, mode, streams) for p, modes in compared.peers.items() for mode in modes]
    fours = [key_of(QUANTISED, mode, streams) for mode in compared.quantised]
    found = {}
    ours = {"": OURS, "engine_": ENGINE, "bfloat16_": HALF, "float16_": HALF_WEIGHTS}
    for prefix, system in ours.items():
        for name, mode, theirs in (
            ("plain_vs_peer", PLAIN, plain),
            ("best_vs_peer", SURVIVAL, every),
            ("best_vs_quantised", SURVIVAL, fours),
        ):
            best = results.speeds(results.fastest(theirs) or "")
            speeds = results.speeds(key_of(system, mode, streams))
            found[f"{prefix}{name}/{streams}"] = ratio(speeds, best)
    return found


def _against_plain(results: Results) -> dict[str, float | None]:
    found = {}
    decoded = {"": ENGINE, "http_": OURS, "bfloat16_": HALF, "float16_": HALF_WEIGHTS}
    for prefix, system in decoded.items():
        plain, survival = f"{system}/{PLAIN}/", f"{system}/{SURVIVAL}/"
        for key in list(results.rounds):
            if key.startswith(plain):
                cell = key.removeprefix(plain)
                ours = results.speeds(survival + cell)
                found[f"{prefix}vs_plain/{cell}"] = ratio(ours, results.speeds(key))
    return found


def _worst(known: Mapping[str, float]) -> dict[str, float]:
    """The lowest of each kind, of overheads the highest."""
    kinds = dict.fromkeys(name.partition("/")[0] for name in known)
    worst = {}
    for kind in kinds:
        values = [value for name, value in known.items() if name.partition("/")[0] == kind]
        worst[kind] = max(values) if kind == "http_overhead" else min(values)
    return worst
