"""`python -m benchmarks.record OUT_FOLDER`: traces of our own drafters on the real target.

Every prompt of the four sets is answered plainly, greedily and at temperature 1; then each drafter
says at every position what it would have offered. `TRACES=OUT_FOLDER python -m benchmarks.replay`
reads them. A domain is a tenant, so that the suffix drafter finds its earlier answers.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.machine import is_quick
from benchmarks.prompts import DOMAINS, load_prompts
from benchmarks.record_positions import Answer, record
from benchmarks.shallow_model import write_shallow_model
from benchmarks.workbench import MODEL, PLAIN, Workbench
from engine.build import build_drafter
from engine.config import DrafterConfig, TargetConfig
from engine.drafters.drafter import Drafter
from engine.model_files import resolve_model
from engine.request import SamplingParams

TEMPERATURES = (0.0, 1.0)
BATCH = 8
NUM_SHALLOW_LAYERS = 6
LOOKUP_LENGTH, MODEL_LENGTH = 20, 10


def main(arguments: Sequence[str]) -> int:
    if len(arguments) != 1:
        print("usage: python -m benchmarks.record OUT_FOLDER", file=sys.stderr)
        return 2
    folder = Path(arguments[0])
    folder.mkdir(parents=True, exist_ok=True)
    config = TargetConfig(MODEL, numerics="invariant")
    bench = Workbench(config)
    drafters = build_drafters(config, bench.runner.vocab_size)
    num_prompts, num_tokens = (2, 24) if is_quick() else (1000, 256)
    for domain in DOMAINS:
        path = folder / f"{domain}.jsonl"
        with path.open("w", encoding="utf-8") as lines:
            for answer in answers(bench, domain, num_prompts, num_tokens):
                lines.write(json.dumps(record(answer, drafters)) + "\n")
                print(f"record: {answer.id}, {len(answer.ids)} tokens", file=sys.stderr)
        print(path)
    return 0


def build_drafters(config: TargetConfig, vocab_size: int) -> list[Drafter]:
    """Prompt lookup, suffix, and the target's own first layers as `model`."""
    with tempfile.TemporaryDirectory() as folder:
        shallow = write_shallow_model(resolve_model(MODEL), NUM_SHALLOW_LAYERS, Path(folder))
        configs = (
            DrafterConfig("lookup", "prompt_lookup", LOOKUP_LENGTH),
            DrafterConfig("suffix", "suffix", LOOKUP_LENGTH),
            DrafterConfig("model", "model", MODEL_LENGTH, str(shallow)),
        )
        return [build_drafter(each, config, vocab_size) for each in configs]


def answers(bench: Workbench, domain: str, num_prompts: int, num_tokens: int) -> Iterator[Answer]:
    """The target's answers to a set's prompts, at each temperature, a batch at a time."""
    prompts = [bench.encode(prompt.text) for prompt in load_prompts(domain)][:num_prompts]
    for temperature in TEMPERATURES:
        sampling = SamplingParams(temperature=temperature, seed=0)
        for start in range(0, len(prompts), BATCH):
            batch = prompts[start : start + BATCH]
            run = bench.run(batch, PLAIN, num_tokens, sampling)
            for i, (prompt, ids) in enumerate(zip(batch, run.ids, strict=True), start=start):
                yield Answer(f"{domain}-{temperature:g}-{i}", domain, prompt, ids, sampling)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
