"""When to stop: rules of draft length against each other, on real drafts along the target's texts.

What a rule drafts is known, so tokens and rounds are exact; seconds are those of a round with so
many draft tokens, measured beforehand.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from engine.drafters.drafter import Drafter, DraftRequest
from engine.drafters.folder import DrafterFolder
from engine.drafters.trained import drafter_of, stopping_by_head, stopping_by_probability
from engine.loaded_target import LoadedTarget
from engine.request import SamplingParams
from training.corpus import Text
from training.hindsight import score

THRESHOLDS = (0.3, 0.5, 0.7, 0.9)


@dataclass(frozen=True, slots=True)
class Rounds:
    """Tokens that were emitted, and how many rounds had a draft of each length."""

    num_tokens: int
    lengths: Mapping[int, int]

    def tokens_per_s(self, round_s: Callable[[int], float]) -> float:
        """`round_s` is the time of a round with so many draft tokens."""
        return self.num_tokens / sum(n * round_s(length) for length, n in self.lengths.items())


def draft_along(drafter: Drafter, texts: Sequence[Text], draft_length: int) -> Rounds:
    """Drafts at the start of every round until each text is said."""
    lengths: Counter[int] = Counter()
    num_tokens = 0
    for number, text in enumerate(texts):
        sampling = SamplingParams(temperature=text.temperature, seed=text.seed)
        name, at = str(number), text.num_prompt_tokens + 1
        past = text.past
        while at < len(text.tokens):
            request = DraftRequest(
                name, "t", text.tokens[:at], text.num_prompt_tokens, sampling, draft_length, past
            )
            (draft,) = drafter.draft([request])
            truth = text.tokens[at : at + len(draft.tokens)]
            accepted = 0
            while accepted < len(truth) and draft.tokens[accepted] == truth[accepted]:
                accepted += 1
            lengths[len(draft.tokens)] += 1
            at += accepted + 1
        drafter.forget([name])
        num_tokens += text.num_answer_tokens - 1
    return Rounds(num_tokens, lengths)


def compare_rules(
    folder: DrafterFolder,
    target: LoadedTarget,
    texts: Sequence[Text],
    longest: int,
    round_s: Callable[[int], float],
) -> dict[str, float]:
    """Tokens per second of every rule and setting; those by head only where there is one."""
    found = {}
    scored = score(drafter_of(folder, target, "fixed", longest), texts, "t")
    num_tokens = sum(each.num_tokens for each in scored)
    for length in range(1, longest + 1):
        rounds = Rounds(num_tokens, {length: sum(each.num_rounds(length) for each in scored)})
        found[f"fixed {length}"] = rounds.tokens_per_s(round_s)
    rules = {"probability": stopping_by_probability, "head": stopping_by_head}
    for name, rule in rules.items():
        for threshold in THRESHOLDS:
            stopping = rule(folder, target, threshold, longest)
            drafter = drafter_of(folder, target, name, longest, stopping)
            rounds = draft_along(drafter, texts, longest)
            found[f"{name} {threshold:g}"] = rounds.tokens_per_s(round_s)
    return found


def best_of(found: Mapping[str, float], rule: str) -> float:
    """Of all settings of a rule."""
    return max(value for name, value in found.items() if name.startswith(f"{rule} "))
