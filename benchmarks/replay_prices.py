"""What a round costs on the recorded hardware, by batch: the fit that came with the traces.

Llama-3.1-8B on one H100 (arXiv 2601.11580). Other models' traces are priced by it too: what is
compared is then how well arms are chosen, not how fast those models are.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

import numpy as np

from benchmarks.replay_traces import LOOKUP, MODEL
from policies.arms import Arms
from policies.prices import FixedPrices

MODEL_LENGTHS = (1, 2, 3, 4, 5, 6, 8, 10)
LOOKUP_LENGTHS = (1, 2, 3, 5, 8, 10, 14, 20)
BATCHES = (1, 8, 32, 128)
DraftPrice = Literal["per_token", "per_call"]

_FIXED_MS = 5.886 + 1.207  # of a target step, and its overhead
_TOKEN_MS = 0.021
_KV_ENTRY_MS = 3.93e-5
_MEAN_KV_ENTRIES = 800
_MODEL_CALL_MS = 2.135  # whether of a call or of five tokens is not settled
_LOOKUP_MS = 0.035


def make_arms(models: Collection[str] = (MODEL,), lookups: Collection[str] = (LOOKUP,)) -> Arms:
    return Arms(dict.fromkeys(models, MODEL_LENGTHS) | dict.fromkeys(lookups, LOOKUP_LENGTHS))


def make_prices(
    arms: Arms,
    batch: int,
    draft_price: DraftPrice = "per_token",
    lookups: Collection[str] = (LOOKUP,),
) -> FixedPrices:
    """A sequence carries its own tokens and KV reads and 1/batch of everything else."""
    lengths = np.arange(arms.max_length + 1)
    plain = _FIXED_MS / batch + _TOKEN_MS + _KV_ENTRY_MS * _MEAN_KV_ENTRIES
    milliseconds = np.tile(plain + _TOKEN_MS * lengths, (len(arms.names), 1))
    evaluation = np.zeros(len(arms.names))
    of_model = lengths / 5 if draft_price == "per_token" else np.minimum(lengths, 1)
    for drafter, name in enumerate(arms.names[1:], start=1):
        if name in lookups:
            milliseconds[drafter] += _LOOKUP_MS / batch * (lengths > 0)
            evaluation[drafter] = _LOOKUP_MS / batch
        else:
            milliseconds[drafter] += _MODEL_CALL_MS / batch * of_model
            evaluation[drafter] = _MODEL_CALL_MS / batch * of_model[max(MODEL_LENGTHS)]
    return FixedPrices(milliseconds / 1e3, evaluation / 1e3)
