"""What the steps of a round ask of the target: tokens in, draws out, and how much it is."""

from __future__ import annotations

from collections.abc import Sequence

from engine.draws import Draw
from engine.runner import Extension
from engine.scheduler import Step
from policies.selector import Load


def load_of(steps: Sequence[Step]) -> Load:
    return Load(
        num_sequences=sum(step.decodes for step in steps),
        num_tokens=sum(step.num_new for step in steps),
        num_kv_entries=sum(step.sequence.num_computed + step.num_new for step in steps),
    )


def extension_of(step: Step) -> Extension:
    sequence = step.sequence
    start = sequence.num_computed
    tokens = [*sequence.tokens[start : start + step.num_new], *step.draft]
    num_logits = len(step.draft) + 1 if step.emits else 0
    return Extension(tokens, start, sequence.block_table, num_logits)


def draws_of(steps: Sequence[Step]) -> list[Draw]:
    """Who draws from each row of logits, were all drafts right, and the token's position."""
    return [
        (step.sequence.sampler, len(step.sequence.tokens) + i)
        for step in steps
        if step.emits
        for i in range(len(step.draft) + 1)
    ]
