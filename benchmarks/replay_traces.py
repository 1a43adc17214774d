"""Recorded accept lengths of drafters over whole requests, as arrays, and balanced samples of them.

The form is that of SpecDecode-Bench's simulator (arXiv 2601.11580): one JSON object a line with
`accept_length` by drafter (bonus included) at every output position.
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
DRAFTERS = (MODEL, LOOKUP)
_MAX_STREAK = 20


@dataclass(frozen=True, slots=True)
class Trace:
    """One request: by drafter and output position what would have been accepted, and was known.

    A drafter offers `offered[d][j]` tokens at j, of which `accepted[d][j]` are the target's;
    `matches` is lookup's evidence, `streaks` the run of tokens before j that d would have
    predicted one by one.
    """

    domain: str
    num_tokens: int
    accepted: Mapping[str, Ints]
    offered: Mapping[str, Ints]
    matches: Ints
    streaks: Mapping[str, Ints]


def read_traces(folder: Path) -> list[Trace]:
    """Every request of `folder` whose drafters all saw the same text."""
    records = (
        json.loads(line)
        for path in sorted(folder.glob("*.jsonl"))
        for line in path.read_text(encoding="utf-8").splitlines()
    )
    return [_trace(record) for record in records if record["counterfactual"]]


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
    accepted = {name: np.array(record["accept_length"][name]) - 1 for name in DRAFTERS}
    num_tokens = min(map(len, accepted.values()))
    accepted = {name: values[:num_tokens] for name, values in accepted.items()}
    matches = np.array(record["ngram_match_order"][:num_tokens])
    looked_up = np.maximum(record["ngram_offered"][:num_tokens], accepted[LOOKUP])
    return Trace(
        record["domain"],
        num_tokens,
        {MODEL: accepted[MODEL], LOOKUP: np.where(matches > 0, accepted[LOOKUP], 0)},
        {MODEL: np.full(num_tokens, 20), LOOKUP: np.where(matches > 0, looked_up, 0)},
        matches,
        {name: _streaks(accepted[name]) for name in DRAFTERS},
    )


def _streaks(accepted: Sequence[int] | Ints) -> Ints:
    streaks = np.zeros(len(accepted), np.int64)
    for j in range(1, len(accepted)):
        streaks[j] = min(streaks[j - 1] + 1, _MAX_STREAK) if accepted[j - 1] > 0 else 0
    return streaks
