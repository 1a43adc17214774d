"""The price of drafter-invariant decoding: shared noise against rejection sampling.

With shared noise a draft token is accepted when both draw the same; rejection sampling accepts it
with probability 1 - TV of the two distributions, but then the text depends on the drafter. Shared
noise reaches at least (1 - TV) / (1 + TV) of it (arXiv 2408.07978, theorem 3).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from engine.request import SamplingParams
from engine.runner import Logits
from engine.sampling import TokenSampler
from training.corpus import Text
from training.student import Batch, Student

_NUM_SEEDS = 4


@dataclass(frozen=True, slots=True)
class Coupling:
    """Shares of first draft tokens that are accepted, over `num_positions` positions."""

    shared_noise: float
    rejection_sampling: float
    num_positions: int

    @property
    def ratio(self) -> float:
        return self.shared_noise / max(self.rejection_sampling, 1e-9)


@torch.no_grad()
def compare(
    student: Student, output: Tensor, texts: Sequence[Text], temperature: float, most: int
) -> Coupling:
    """At up to `most` positions of answers; `output` is the target's output layer."""
    overlaps, agreements = [], []
    for text in texts:
        first = text.num_prompt_tokens - 1
        batch = Batch.of([text], [0], len(text.tokens), str(output.device))
        states = student.states(batch, 1)[0][0, first:]
        rows = student.vocabulary.expand(student.logits(states).cpu().numpy())
        target = functional.linear(batch.states[0, first:], output.float()).cpu()
        overlaps.append(_overlap(target, torch.from_numpy(rows), temperature))
        agreements += _agreements(target, rows, text, temperature)
        if len(agreements) >= most * _NUM_SEEDS:
            break
    overlap = torch.cat(overlaps)
    return Coupling(float(np.mean(agreements)), float(overlap.mean()), len(overlap))


def _overlap(target: Tensor, drafter: Tensor, temperature: float) -> Tensor:
    """1 - TV by row."""
    pair = [(rows / temperature).softmax(-1) for rows in (target, drafter)]
    return torch.minimum(*pair).sum(-1)


def _agreements(
    target: Tensor, rows: NDArray[np.float32], text: Text, temperature: float
) -> list[bool]:
    """Whether both draw the same, row by row, under some seeds."""
    logits, found = Logits(target), []
    for seed in range(_NUM_SEEDS):
        sampler = TokenSampler(SamplingParams(temperature=temperature, seed=seed), ())
        for row, drafted in enumerate(rows):
            position = text.num_prompt_tokens + row
            theirs = sampler.sample(logits.row(row), position)
            found.append(theirs == sampler.sample(drafted, position))
    return found
