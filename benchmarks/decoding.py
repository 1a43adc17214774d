"""`python -m benchmarks.decoding`: how fast this engine decodes, against its peers and itself.

One process, one target, `numerics: fast`; whatever is compared is run in turns, and only ratios
taken in one run mean anything. The last line printed is one JSON object. QUICK=1: within 60 s.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from benchmarks.forward_cost import measure_forward
from benchmarks.machine import describe_machine, is_quick, peak_rss_mb
from benchmarks.prompts import DOMAINS, load_prompts
from benchmarks.reference import Reference, compare_with_generate
from benchmarks.sampling_cost import NUM_ROWS, measure_sampling
from benchmarks.shallow_model import write_shallow_model
from benchmarks.speculation import compare_drafters
from benchmarks.streams import compare_sampled_with_greedy, compare_streams
from benchmarks.workbench import MODEL, PLAIN, Ids, Workbench
from engine.config import TargetConfig
from engine.model_files import resolve_model

NUM_SHALLOW_LAYERS = 6
CONTEXT = 200


@dataclass(frozen=True, slots=True)
class Size:
    """How much to run."""

    prompts_per_set: int
    mixed_prompts: int
    tokens_per_prompt: int
    repeats: int
    stream_tokens: int
    forward_repeats: int
    sampling_repeats: int


FULL = Size(3, 12, 48, 3, 64, 15, 5)
QUICK = Size(1, 2, 20, 1, 8, 2, 1)


def main() -> int:
    size = QUICK if is_quick() else FULL
    with tempfile.TemporaryDirectory() as folder:
        shallow = write_shallow_model(resolve_model(MODEL), NUM_SHALLOW_LAYERS, Path(folder))
        bench = Workbench(TargetConfig(MODEL, numerics="fast"), shallow)
    print(describe_machine())
    print(
        f"target: {MODEL}, float32, numerics fast; drafter `model` is the target's first "
        f"{NUM_SHALLOW_LAYERS} layers (no smaller model has this vocabulary)"
    )
    figures = {key: round(value, 4) for key, value in measure(bench, size).items()}
    print(json.dumps(figures))
    return 0


def measure(bench: Workbench, size: Size) -> dict[str, float]:
    """All figures, by name."""
    sets = {
        domain: [bench.encode(p.text) for p in islice(load_prompts(domain), size.prompts_per_set)]
        for domain in DOMAINS
    }
    mixed = mix(sets, size.mixed_prompts)
    bench.run(mixed[:1], PLAIN, 2)  # warms up
    text = long_text(bench)
    figures = measure_forward(bench.runner, text, CONTEXT, size.forward_repeats)
    texts = [p + a for p, a in zip(mixed, bench.run(mixed, PLAIN, NUM_ROWS).ids, strict=True)]
    figures |= measure_sampling(bench.runner, texts, size.sampling_repeats)
    figures |= compare_streams(bench, size.stream_tokens, size.repeats)
    figures |= compare_sampled_with_greedy(bench, mixed, size.stream_tokens, size.repeats)
    figures |= compare_drafters(bench, sets, size.tokens_per_prompt, size.repeats)
    figures["peak_rss_mb"] = peak_rss_mb()
    print(f"\npeak memory before transformers' own model is loaded: {peak_rss_mb():.0f} MiB")
    reference = Reference(MODEL, bench.text.eos_token_ids)
    return figures | compare_with_generate(
        bench, reference, mixed, size.tokens_per_prompt, size.repeats
    )


def mix(sets: dict[str, list[Ids]], num_prompts: int) -> list[Ids]:
    """Prompts of all sets in turns."""
    rows: Sequence[tuple[Ids, ...]] = list(zip(*sets.values(), strict=True))
    return [prompt for row in rows for prompt in row][:num_prompts]


def long_text(bench: Workbench) -> Ids:
    """Ids of enough text for a context and what is verified after it."""
    prompts = [prompt.text for prompt in load_prompts("edit")]
    ids = bench.text.encode("\n\n".join(prompts), add_special_tokens=False)
    return tuple(ids[: CONTEXT + 64])


if __name__ == "__main__":
    sys.exit(main())
