"""What target steps and drafts take here, for the speed-up that an acceptance length buys."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

from engine.drafters.drafter import Drafter, DraftRequest
from engine.loaded_target import LoadedTarget
from engine.request import SamplingParams
from engine.runner import Extension
from training.corpus import Text

_NUM_REPEATS = 9
_GREEDY = SamplingParams(temperature=0.0)


def step_seconds(target: LoadedTarget, num_tokens: int, num_cached: int = 128) -> float:
    """The median step of one sequence; writes over the cache's first blocks."""
    blocks = range(-(-(num_tokens + num_cached) // target.config.block_size))
    target.runner.extend([Extension([0] * num_cached, 0, blocks, 1)])
    times = []
    for _ in range(_NUM_REPEATS):
        started = time.perf_counter()
        logits = target.runner.extend([Extension([0] * num_tokens, num_cached, blocks, num_tokens)])
        logits.greedy(num_tokens - 1)
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def draft_seconds(drafter: Drafter, texts: Sequence[Text], draft_length: int) -> float:
    """The median draft, three tokens after the one before."""
    text = max(texts, key=lambda each: each.num_answer_tokens)
    times, past = [], text.past
    for end in range(text.num_prompt_tokens + 1, len(text.tokens), 3):
        tokens = text.tokens[:end]
        request = DraftRequest(
            "timed", "timed", tokens, text.num_prompt_tokens, _GREEDY, draft_length, past
        )
        started = time.perf_counter()
        drafter.draft([request])
        times.append(time.perf_counter() - started)
        if len(times) > 3 * _NUM_REPEATS:
            break
    drafter.forget(["timed"])
    return statistics.median(times[1:] or times)


def speed_up(acceptance_length: float, plain_s: float, verify_s: float, draft_s: float) -> float:
    """Expected, against plain decoding, for one stream."""
    return acceptance_length * plain_s / (verify_s + draft_s)
