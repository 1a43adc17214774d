"""When two different ids are the same decision up to rounding: the rule of `numerics: fast`.

The scores that the sampler compares are computed here once more, in float64 and independently,
from the logits after the text that both sides share.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engine.noise import gumbel, hash_noise, spread
from engine.request import SamplingParams
from engine.sampling import truncate

MAX_GAP = 1e-3
Scores = NDArray[np.float64]  # [vocab]


@dataclass(frozen=True, slots=True)
class Situation:
    """What a token is drawn after: `prompt`, then `answer`. `end_ids` end the sequence."""

    prompt: Sequence[int]
    answer: Sequence[int]
    sampling: SamplingParams
    end_ids: Sequence[int] = ()

    @property
    def position(self) -> int:
        return len(self.prompt) + len(self.answer)


def is_excused(row: NDArray[np.float32], situation: Situation, one: int, other: int) -> bool:
    """Whether `one` and `other`, drawn by two sides from about `row`, are closer than MAX_GAP.

    A token within MAX_GAP of the edge of top_k, min_p or top_p may be kept on one side and cut on
    the other; it is then excused if it wins wherever it is kept.
    """
    params = situation.sampling
    scores = _processed(row, situation)
    if params.temperature == 0.0:
        return bool(abs(scores[one] - scores[other]) < MAX_GAP)
    scores = (scores - scores.max()) / params.temperature
    edge = [_is_at_edge(scores, params, token) for token in (one, other)]
    kept = [_is_kept(scores, params, token) for token in (one, other)]
    ids = np.asarray([one, other])
    drawn = scores[ids] + gumbel(hash_noise(params.seed, situation.position, spread(ids)))
    gap = float(drawn[0] - drawn[1])
    if not all(is_kept or is_edge for is_kept, is_edge in zip(kept, edge, strict=True)):
        return False
    return abs(gap) < MAX_GAP or (edge[0] and gap > 0) or (edge[1] and gap < 0)


def _processed(row: NDArray[np.float32], situation: Situation) -> Scores:
    """Penalties, logit bias and the mask before min_tokens, in this order."""
    params = situation.sampling
    scores = row.astype(np.float64)
    if params.repetition_penalty != 1.0:
        for token in {*situation.prompt, *situation.answer}:
            is_positive = scores[token] > 0
            scores[token] *= params.repetition_penalty ** (-1 if is_positive else 1)
    for token, count in Counter(situation.answer).items():
        scores[token] -= params.frequency_penalty * count + params.presence_penalty
    for token, bias in params.logit_bias.items():
        scores[token] += bias
    if len(situation.answer) < params.min_tokens:
        scores[list(situation.end_ids)] = -np.inf
    return scores


def _is_kept(scaled: Scores, params: SamplingParams, token: int, nudge: float = 0.0) -> bool:
    nudged = scaled.copy()
    nudged[token] += nudge
    kept = truncate((nudged - nudged.max()).astype(np.float32), params)
    return kept is None or token in kept


def _is_at_edge(scaled: Scores, params: SamplingParams, token: int) -> bool:
    return _is_kept(scaled, params, token, MAX_GAP) and not _is_kept(
        scaled, params, token, -MAX_GAP
    )
