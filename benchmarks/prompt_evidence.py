"""`python -m benchmarks.prompt_evidence`: do accept lengths on a prompt foretell its answer's?

Both as the ratio of accepted tokens to those that drafts with so long an offer have accepted on all
answers, shrunk to one. The last line printed is one JSON object. QUICK=1: fewer, shorter answers.
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from statistics import correlation, geometric_mean

import numpy as np

from benchmarks.decoding import mix
from benchmarks.machine import describe_machine, is_quick
from benchmarks.prompts import DOMAINS, load_prompts
from benchmarks.spread import print_table
from benchmarks.workbench import GREEDY, MODEL, PLAIN, Ids, Workbench
from engine.config import TargetConfig
from engine.drafters.drafter import Drafter, Outcome, ScoreRequest
from engine.drafters.prompt_lookup import PromptLookupDrafter
from engine.drafters.suffix import SuffixDrafter

MAKERS: Mapping[str, Callable[[], Drafter]] = {
    "lookup": lambda: PromptLookupDrafter("lookup", 16),
    "suffix": lambda: SuffixDrafter("suffix", 16),
}
WEIGHT = 8.0  # expected tokens that "as all answers" counts for
LONGEST_BUCKET = 5  # offers at least so long count alike


def main() -> int:
    per_domain, num_tokens = (1, 16) if is_quick() else (8, 96)
    print(describe_machine())
    bench = Workbench(TargetConfig(MODEL, numerics="fast"))
    prompts = mix(
        {d: [bench.encode(p.text) for p in islice(load_prompts(d), per_domain)] for d in DOMAINS},
        per_domain * len(DOMAINS),
    )
    answers = bench.run(prompts, PLAIN, num_tokens, ignore_eos=True).ids
    figures = {}
    for name, make in MAKERS.items():
        on_prompts = [score(make(), prompt, 1) for prompt in prompts]
        on_answers = [
            score(make(), prompt + answer, len(prompt))
            for prompt, answer in zip(prompts, answers, strict=True)
        ]
        figures[f"{name}_correlation"] = compare(name, on_prompts, on_answers)
    print(json.dumps({key: round(value, 3) for key, value in figures.items()}))
    return 0


def score(drafter: Drafter, tokens: Ids, first: int) -> Sequence[Outcome]:
    """Of all positions from `first` on that `tokens` settle, where something was offered."""
    request = ScoreRequest("one", "tenant", tokens, first, GREEDY)
    return [outcome for outcome in drafter.score([request])[0] if outcome.num_offered]


def compare(
    name: str, prompts: Sequence[Sequence[Outcome]], answers: Sequence[Sequence[Outcome]]
) -> float:
    """Prints both ratios by domain; gives the correlation of their logarithms."""
    accepted = defaultdict(list)
    for outcome in (outcome for answer in answers for outcome in answer):
        accepted[_bucket(outcome)].append(outcome.accept_length)
    expected = {bucket: float(np.mean(lengths)) for bucket, lengths in accepted.items()}
    before = [_ratio(prompt, expected) for prompt in prompts]
    after = [_ratio(answer, expected) for answer in answers]
    rows = [
        [domain, *(f"{geometric_mean(part[i :: len(DOMAINS)]):.2f}" for part in (before, after))]
        for i, domain in enumerate(DOMAINS)
    ]
    print_table(f"{name}: accepted to expected", ["", "on prompts", "on answers"], rows)
    return correlation(np.log(before).tolist(), np.log(after).tolist())


def _ratio(outcomes: Sequence[Outcome], expected: Mapping[int, float]) -> float:
    seen = sum(outcome.accept_length for outcome in outcomes)
    wanted = sum(expected.get(_bucket(outcome), 0.0) for outcome in outcomes)
    return (seen + WEIGHT) / (wanted + WEIGHT)


def _bucket(outcome: Outcome) -> int:
    return min(outcome.num_offered, LONGEST_BUCKET)


if __name__ == "__main__":
    sys.exit(main())
