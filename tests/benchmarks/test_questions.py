"""Questions of published sets are read by their keys, and averaged as Spec-Bench does."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.question_files import QuestionError, read_questions
from benchmarks.questions import Answers, report

RECORDS = {
    "Spec-Bench": ({"question_id": 1, "category": "writing", "turns": ["a", "b"]}, ("a", "b")),
    "HumanEval": ({"task_id": "x/0", "prompt": "def f():", "test": ""}, ("def f():",)),
    "GSM8K": ({"question": "How many?", "answer": "2"}, ("How many?",)),
    "Alpaca": ({"instruction": "Sum up.", "input": "Text", "output": ""}, ("Sum up.\n\nText",)),
    "Alpaca, no input": ({"instruction": "Say.", "input": "", "output": ""}, ("Say.",)),
    "DebugBench": (
        {"question": "Add.", "buggy_code": "x", "solution": "y"},
        ("Fix the bug in this program.\n\nTask: Add.\n\n```\nx\n```",),
    ),
    "CodeEditorBench": (
        {"idx": 1, "code_language": "python", "incorrect_solutions": "x"},
        ("Fix the bug in this python program.\n\n```\nx\n```",),
    ),
}


@pytest.mark.parametrize(("record", "turns"), RECORDS.values(), ids=RECORDS)
def test_a_record_is_known_by_its_keys(
    record: dict[str, object], turns: tuple[str, ...], tmp_path: Path
) -> None:
    lines, listed = tmp_path / "lines.jsonl", tmp_path / "listed.json"
    lines.write_text(json.dumps(record) + "\n\n" + json.dumps(record) + "\n")
    listed.write_text(json.dumps([record], indent=1))
    assert [question.turns for question in read_questions(lines)] == [turns, turns]
    (question,) = read_questions(listed)
    assert (question.turns, question.category) == (turns, record.get("category", "listed"))


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"unknown": "x"}', '{"prompt": 5}'])
def test_other_files_are_refused_by_name(text: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(text)
    with pytest.raises(QuestionError, match=r"bad\.jsonl"):
        read_questions(path)


def test_rates_are_means_over_questions_and_acceptance_is_pooled() -> None:
    plain = Answers([10.0, 30.0], num_decoded=100, num_rounds=100)
    other = Answers([30.0, 30.0], num_decoded=100, num_rounds=40)
    figures = report({"all": {"plain": plain, "other": other}})["all"]
    assert figures["plain"]["tokens_per_s"] == 20.0
    assert figures["other"] == {
        "tokens_per_s": 30.0, "speed_up": 1.5, "acceptance_length": 2.5,
    }  # fmt: skip
