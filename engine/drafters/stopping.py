"""A drafter's own stop: after which token of a draft it goes no further.

What it looks at is a function of the verified text alone, and what judges it is fixed when the
drafter is loaded: so a draft is the same whenever it is made, and hindsight stays exact. A
predictor that learns while it serves could only be swapped in with a new drafter.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from engine.runner import Logits
from policies.draft_length import AcceptPredictor, ThresholdLength


class Evidence(Protocol):
    """What a drafter knows of the tokens it has drawn, one per row of logits, before their test."""

    def of(self, logits: Logits, tokens: Sequence[int]) -> list[float]: ...


class TopProbabilityEvidence:
    """The probability of the drafter's likeliest token."""

    def of(self, logits: Logits, tokens: Sequence[int]) -> list[float]:
        found: list[float] = logits.top_probabilities().tolist()
        return found


class AcceptanceHead(nn.Module):
    """Chance that a draft token is accepted if those before it are, from the drafter's state.

    SpecDec++ (arXiv 2405.19715, section 3.1): residual blocks x + silu(linear(x)), then a linear
    layer. It also reads how likely the drafter itself holds the token that it drew.
    """

    def __init__(self, hidden_size: int, num_blocks: int) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(hidden_size, 1e-5)
        self.blocks = nn.ModuleList(nn.Linear(hidden_size, hidden_size) for _ in range(num_blocks))
        self.out = nn.Linear(hidden_size + 1, 1)

    def forward(self, states: Tensor, log_probs: Tensor) -> Tensor:
        """states [num_tokens, hidden], log_probs [num_tokens] -> logits of acceptance."""
        x = self.norm(states)
        for block in self.blocks:
            x = x + functional.silu(block(x))
        out: Tensor = self.out(torch.cat([x, log_probs[:, None].to(x.dtype)], -1))
        return out[:, 0]


class AcceptanceEvidence:
    """An acceptance head's probabilities."""

    def __init__(self, head: AcceptanceHead) -> None:
        self._head = head

    @torch.inference_mode()
    def of(self, logits: Logits, tokens: Sequence[int]) -> list[float]:
        raw = self._head(logits.states, logits.log_probs(tokens))
        found: list[float] = raw.float().sigmoid().tolist()
        return found


class Stopping:
    """Stops a draft when 1 - product of the chances of acceptance exceeds `threshold`.

    The token that passes the threshold is still drafted; `max_length` ends every draft.
    """

    def __init__(
        self, evidence: Evidence, predictor: AcceptPredictor, threshold: float, max_length: int
    ) -> None:
        self._evidence = evidence
        self._predictor = predictor
        self._rule = ThresholdLength(predictor, threshold, 1, max_length)
        self.max_length = max_length

    def evidence(self, logits: Logits, tokens: Sequence[int]) -> list[float]:
        """Of the token that was drawn from each row."""
        return self._evidence.of(logits, tokens)

    def chances(self, evidence: Sequence[float]) -> list[float]:
        """Of acceptance, of tokens with this evidence."""
        table = np.array(evidence, np.float64)
        found: list[float] = self._predictor.accept_probabilities(table).tolist()
        return found

    def goes_on(self, evidence: Sequence[Sequence[float]]) -> list[bool]:
        """Of drafts that are equally long, by the evidence of all of their tokens."""
        table = np.array(evidence, np.float64)
        found: list[bool] = self._rule.goes_on(table.shape[1], table).tolist()
        return found

    def stop_in(self, evidence: Sequence[float]) -> int | None:
        """After how many tokens a draft with this evidence stops; None if it still goes on."""
        for length in range(1, min(len(evidence), self.max_length - 1) + 1):
            if not self.goes_on([evidence[:length]])[0]:
                return length
        return None
