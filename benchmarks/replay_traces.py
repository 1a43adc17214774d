"""Recorded accept lengths of drafters over whole requests, as arrays, and balanced samples of them.

The form is that of SpecDecode-Bench's simulator (arXiv 2601.11580): one JSON object a line with
`accept_length` by drafter (bonus included) at every output position. `benchmarks.record` adds
`offered` and `match_length` by drafter, which say the same as the older `ngram_*` fields.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from policies.arms import Ints

MODEL, LOOKUP = "eagle", "ngram"
_MAX_STREAK = 20
_MAX_OFFER = 20


@dataclass(frozen=True, slots=True)
class Trace:
    """One request: by drafter and output position what would have been accepted, and was known.

    A drafter offers `offered[d][j]` tokens at j, of which `accepted[d][j]` are the target's;
    `matches` is the evidence of those that look up, `streaks` the run of tokens before j that d
    would have predicted one by one.
    """

    domain: str
    num_tokens: int
    accepted: Mapping[str, Ints]
    offered: Mapping[str, Ints]
    matches: Mapping[str, Ints]
    streaks: Mapping[str, Ints]

    @property
    def lookups(self) -> tuple[str, ...]:
        return tuple(self.matches)

    @property
    def models(self) -> tuple[str, ...]:
        return tuple(name for name in self.accepted if name not in self.matches)


def read_traces(folder: Path) -> list[Trace]:
    """Every request of `folder` whose drafters all saw the same text, if it has any.

    Raises ValueError where not all of them have the same drafters.
    """
    records = (
        json.loads(line)
        for path in sorted(folder.glob("*.jsonl"))
        for line in path.read_text(encoding="utf-8").splitlines()
    )
    traces = [_trace(record) for record in records if record["counterfactual"]]
    pools = {(frozenset(trace.models), frozenset(trace.lookups)) for trace in traces}
    if len(pools) > 1:
        raise ValueError(f"{folder}: traces of different drafters: {sorted(map(str, pools))}")
    return [trace for trace in traces if trace.num_tokens]


def balanced(traces: Iterable[Trace], per_domain: int, seed: int) -> list[Trace]:
    """As many of each domain, or all there are, in an order of `seed`."""
    generator = np.random.default_rng(seed)
    by_domain: dict[str, list[Trace]] = defaultdict(list)
    for trace in traces:
        by_domain[trace.domain].append(trace)
    chosen: list[Trace] = []
    for domain in sorted(by_domain):
        order = generator.permutation(len(by_domain[domain]))[:per_domain]
        chosen += [by_domain[domain][i] for i in order]
    return [chosen[i] for i in generator.permutation(len(chosen))]


def _trace(record: Mapping[str, Any]) -> Trace:
    accepted = {name: np.array(each) - 1 for name, each in record["accept_length"].items()}
    num_tokens = min(map(len, accepted.values()))
    accepted = {name: each[:num_tokens] for name, each in accepted.items()}
    matched = record.get("match_length") or {LOOKUP: record["ngram_match_order"]}
    matches = {name: np.array(each[:num_tokens]) for name, each in matched.items()}
    could = record.get("offered") or {LOOKUP: record["ngram_offered"]}
    offered = {
        name: np.maximum(could[name][:num_tokens], accepted[name])
        if name in could
        else np.full(num_tokens, _MAX_OFFER)
        for name in accepted
    }
    streaks = {name: _streaks(each) for name, each in accepted.items()}
    for name, match in matches.items():
        accepted[name] = np.where(match > 0, accepted[name], 0)
        offered[name] = np.where(match > 0, offered[name], 0)
    return Trace(record["domain"], num_tokens, accepted, offered, matches, streaks)


def _streaks(accepted: Sequence[int] | Ints) -> Ints:
    streaks = np.zeros(len(accepted), np.int64)
    for j in range(1, len(accepted)):
        streaks[j] = min(streaks[j - 1] + 1, _MAX_STREAK) if accepted[j - 1] > 0 else 0
    return streaks
