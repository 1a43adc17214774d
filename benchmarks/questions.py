"""`python -m benchmarks.questions FILE ...`: speeds on published sets, by Spec-Bench's convention.

Files are local (benchmarks/question_files.py). Every question is answered by plain decoding, each
drafter, the rule and survival, in turns, one stream, greedy. A mode's speed is the mean over
questions of each one's tokens per second, prefill included; its acceptance length is pooled: all
tokens by all rounds. Prints both by category, and one JSON object at the end.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from benchmarks.machine import describe_machine
from benchmarks.question_files import Question, QuestionError, read_questions
from benchmarks.selection import SURVIVAL, add_learners
from benchmarks.spread import print_table
from benchmarks.workbench import (
    MODEL,
    PLAIN,
    RULE,
    Mode,
    Workbench,
    drafter_configs,
    trained_configs,
)
from engine.config import TargetConfig
from policies.fixed import FixedSelector

ALL = "all"


@dataclass(slots=True)
class Answers:
    """Of one mode on one category: tokens per second by question, and its rounds."""

    rates: list[float] = field(default_factory=list)
    num_decoded: int = 0
    num_rounds: int = 0

    @property
    def rate(self) -> float:
        """Mean over questions of per-question tokens per second."""
        return statistics.fmean(self.rates)

    @property
    def acceptance_length(self) -> float:
        """Tokens by round, over all rounds of all questions."""
        return self.num_decoded / max(1, self.num_rounds)


def answer(bench: Workbench, question: Question, mode: Mode, num_tokens: int) -> Answers:
    """All turns; the next one is asked after the answer to the one before."""
    found, messages, seconds, total = Answers(), list[Mapping[str, str]](), 0.0, 0
    for turn in question.turns:
        messages.append({"role": "user", "content": turn})
        ids = bench.text.encode(bench.text.render_chat(messages), add_special_tokens=False)
        run = bench.run([tuple(ids)], mode, num_tokens)
        messages.append({"role": "assistant", "content": bench.text.decode(run.ids[0])})
        seconds, total = seconds + run.total_s, total + run.num_tokens
        found.num_decoded += run.num_decoded
        found.num_rounds += run.num_rounds
    found.rates.append(total / seconds)
    return found


def collect(
    bench: Workbench, questions: Sequence[Question], modes: Sequence[Mode], num_tokens: int
) -> dict[str, dict[str, Answers]]:
    """By category and mode; which mode comes first changes with every question."""
    found: dict[str, dict[str, Answers]] = defaultdict(lambda: defaultdict(Answers))
    for i, question in enumerate(tqdm(questions, unit="question")):
        first = i % len(modes)
        for mode in [*modes[first:], *modes[:first]]:
            one = answer(bench, question, mode, num_tokens)
            for category in (question.category, ALL):
                pooled = found[category][mode.name]
                pooled.rates += one.rates
                pooled.num_decoded += one.num_decoded
                pooled.num_rounds += one.num_rounds
    return {
        category: {mode.name: by_mode[mode.name] for mode in modes}
        for category, by_mode in found.items()
    }


def report(found: Mapping[str, Mapping[str, Answers]]) -> dict[str, dict[str, dict[str, float]]]:
    """Prints a table for each category; the same figures by category and mode."""
    figures: dict[str, dict[str, dict[str, float]]] = {}
    for category, by_mode in found.items():
        plain = by_mode[PLAIN.name].rate
        figures[category] = {
            name: {
                "tokens_per_s": each.rate,
                "speed_up": each.rate / plain,
                "acceptance_length": each.acceptance_length,
            }
            for name, each in by_mode.items()
        }
        rows = [
            [name, *(f"{value:.2f}" for value in row.values())]
            for name, row in figures[category].items()
        ]
        count = len(by_mode[PLAIN.name].rates)
        print_table(
            f"{category}, {count} questions", ["", "tokens/s", "vs plain", "acceptance"], rows
        )
    return figures


def make_bench(draft_length: int) -> tuple[Workbench, list[Mode]]:
    """Lookups and the drafters of `models/`, each fixed at a draft length, the rule, survival."""
    config = TargetConfig(MODEL, numerics="fast")
    bench = Workbench(config, [*drafter_configs(None), *trained_configs()])
    lengths = {name: min(draft_length, longest) for name, longest in bench.longest.items()}
    fixed = {f"{name} {length}": (name, length) for name, length in lengths.items()}
    bench.use_selectors({mode: FixedSelector(*arm) for mode, arm in fixed.items()})
    survival = [mode for mode in add_learners(bench) if mode.name == SURVIVAL]
    return bench, [PLAIN, *(Mode(mode, (arm[0],)) for mode, arm in fixed.items()), RULE, *survival]


def questions_of(paths: Iterable[Path], most: int | None) -> list[Question]:
    return [question for path in paths for question in read_questions(path)[:most]]


def refuse_too_long(bench: Workbench, questions: Iterable[Question], num_tokens: int) -> None:
    """Before any work: raises QuestionError for a conversation that would not fit."""
    longest = bench.target.max_sequence_length
    for question in questions:
        messages = [{"role": "user", "content": turn} for turn in question.turns]
        ids = bench.text.encode(bench.text.render_chat(messages), add_special_tokens=False)
        needed = len(ids) + num_tokens * len(question.turns)
        if needed > longest:
            raise QuestionError(
                f"{question.where}: with answers of {num_tokens} tokens it may come to {needed}, "
                f"and the target takes {longest}"
            )


def main(arguments: Sequence[str] | None = None) -> int:
    made = argparse.ArgumentParser(
        prog="python -m benchmarks.questions",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("files", type=Path, nargs="+")
    made.add_argument("--num-questions", type=int, help="of each file; all by default")
    made.add_argument("--num-tokens", type=int, default=256, help="of an answer, at most")
    made.add_argument("--draft-length", type=int, default=5, help="of the fixed modes")
    given = made.parse_args(arguments)
    try:
        questions = questions_of(given.files, given.num_questions)
    except QuestionError as error:
        print(error, file=sys.stderr)
        return 1
    bench, modes = make_bench(given.draft_length)
    try:
        refuse_too_long(bench, questions, given.num_tokens)
    except QuestionError as error:
        print(error, file=sys.stderr)
        return 1
    print(describe_machine())
    bench.run([bench.encode("Hello")], PLAIN, 2)  # warms up
    print(json.dumps(report(collect(bench, questions, modes, given.num_tokens))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
