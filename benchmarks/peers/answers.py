"""What a system answered in a cell, and the figures of it. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(slots=True)
class Answer:
    """Of one job; seconds are since the job was due, `started_s` since the cell began.

    `num_rounds` are the target's steps, 0 where the system does not tell. A `failure` says what
    went wrong; an answer of another length than asked is one.
    """

    domain: str
    started_s: float = 0.0
    first_s: float = 0.0
    total_s: float = 0.0
    num_tokens: int = 0
    num_rounds: int = 0
    text: str = ""
    failure: str = ""

    @property
    def per_token_s(self) -> float:
        """From the first token to the last."""
        return (self.total_s - self.first_s) / max(1, self.num_tokens - 1)


@dataclass(frozen=True, slots=True)
class Effort:
    """Of a process and all below it in a cell: processor time, and the most memory resident."""

    cpu_s: float
    peak_rss_mb: float


@dataclass(frozen=True, slots=True)
class Figures:
    """Of a cell in one round. Medians of the answers; None is not known."""

    tokens_per_s: float
    first_s: float
    per_token_s: float
    acceptance_length: float | None
    core_s_per_million: float
    peak_rss_mb: float
    num_failed: int

    @property
    def document(self) -> dict[str, Any]:
        return asdict(self)


def figures(answers: Sequence[Answer], effort: Effort) -> Figures | None:
    """None if nothing was answered. Tokens per second are until the last answer's end."""
    good = [answer for answer in answers if not answer.failure]
    if not good:
        return None
    num_tokens = sum(answer.num_tokens for answer in good)
    first = min(answer.started_s for answer in answers)
    last = max(answer.started_s + answer.total_s for answer in answers)
    rounds = [answer.num_rounds for answer in good]
    return Figures(
        tokens_per_s=num_tokens / (last - first),
        first_s=statistics.median(answer.first_s for answer in good),
        per_token_s=statistics.median(answer.per_token_s for answer in good),
        acceptance_length=num_tokens / sum(rounds) if all(rounds) else None,
        core_s_per_million=effort.cpu_s / num_tokens * 1e6,
        peak_rss_mb=effort.peak_rss_mb,
        num_failed=len(answers) - len(good),
    )


def median_figures(rounds: Sequence[Figures]) -> Figures:
    """Of each figure; the failures are those of all rounds."""
    known = [each.acceptance_length for each in rounds if each.acceptance_length is not None]
    return Figures(
        tokens_per_s=statistics.median(each.tokens_per_s for each in rounds),
        first_s=statistics.median(each.first_s for each in rounds),
        per_token_s=statistics.median(each.per_token_s for each in rounds),
        acceptance_length=statistics.median(known) if known else None,
        core_s_per_million=statistics.median(each.core_s_per_million for each in rounds),
        peak_rss_mb=max(each.peak_rss_mb for each in rounds),
        num_failed=sum(each.num_failed for each in rounds),
    )
