"""`python -m benchmarks.prove`: speculative decoding says, id for id, what plain decoding says.

On the real model, 1,000 prompts of 64 tokens: first with `numerics: invariant`, where no id may
differ; then with `numerics: fast`, where one may in 50,000 tokens, and only between candidates that
are closer than rounding. Takes most of an hour on two cores; QUICK=1: within 60 s. The last line
printed is one JSON object; the exit status is 1 if an id differs that must not.
"""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from benchmarks.machine import describe_machine, is_quick
from benchmarks.proof import SEED, Findings, Proof
from benchmarks.proof_cases import proof_cases
from benchmarks.shallow_model import write_shallow_model
from benchmarks.workbench import MODEL
from engine.config import Numerics, TargetConfig
from engine.model_files import resolve_model

NUM_SHALLOW_LAYERS = 4
TOKENS_PER_EXCUSE = 50_000


@dataclass(frozen=True, slots=True)
class Size:
    """How much to prove."""

    num_prompts: int
    max_tokens: int


FULL = Size(1000, 64)
QUICK = Size(20, 12)


def main() -> int:
    size = QUICK if is_quick() else FULL
    print(describe_machine())
    with tempfile.TemporaryDirectory() as folder:
        shallow = write_shallow_model(resolve_model(MODEL), NUM_SHALLOW_LAYERS, Path(folder))
        invariant = prove("invariant", size, shallow)
        fast = prove("fast", size, shallow)
    print(json.dumps(figures(size.num_prompts, invariant, fast)))
    return 0 if is_proven(invariant, fast) else 1


def prove(numerics: Numerics, size: Size, shallow: Path) -> Findings:
    """Loads the target in this form, decodes everything, prints what was met on the way."""
    proof = Proof(TargetConfig(MODEL, numerics=numerics), shallow)
    cases = proof_cases(size.num_prompts, size.max_tokens, SEED, proof.encode)
    total = 2 * size.num_prompts * size.max_tokens
    with tqdm(total=total, desc=numerics, unit="tok", mininterval=2.0) as progress:
        findings = proof.run(cases, progress)
    print(
        f"numerics {numerics}: {findings.num_tokens} tokens of {len(cases)} prompts compared, "
        f"{findings.num_mismatches} mismatches, {findings.num_excused} excused; "
        f"{findings.num_accepted_tokens} of {findings.num_draft_tokens} draft tokens accepted, "
        f"{findings.num_preemptions} preemptions, {findings.num_cached_tokens} prompt tokens "
        "from the prefix cache",
        flush=True,
    )
    return findings


def figures(num_prompts: int, invariant: Findings, fast: Findings) -> dict[str, int]:
    """The last line's object."""
    return {
        "prompts": num_prompts,
        "tokens": invariant.num_tokens,
        "mismatches": invariant.num_mismatches,
        "excused": invariant.num_excused,
        "fast_tokens": fast.num_tokens,
        "fast_mismatches": fast.num_mismatches,
        "fast_excused": fast.num_excused,
    }


def is_proven(invariant: Findings, fast: Findings) -> bool:
    """No mismatch; excuses only in `fast`, one in 50,000 tokens (a short run may have one)."""
    allowed = max(1, fast.num_tokens // TOKENS_PER_EXCUSE)
    return (
        invariant.num_mismatches == fast.num_mismatches == invariant.num_excused == 0
        and fast.num_excused <= allowed
    )


if __name__ == "__main__":
    sys.exit(main())
