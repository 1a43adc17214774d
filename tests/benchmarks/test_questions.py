"""Questions of published sets are read by their keys, and averaged as Spec-Bench does."""

from __future__ import annotations

import gzip
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
    "CodeEditorBench, debug": (
        {"idx": 1, "code_language": "python", "incorrect_solutions": "x"},
        ("Fix the bug in this python program.\n\n```\nx\n```",),
    ),
    "CodeEditorBench, translate": (
        {"idx": 1, "source_code": "x", "source_lang": "java", "target_lang": "python"},
        ("Translate this program from java to python.\n\n```\nx\n```",),
    ),
    "CodeEditorBench, polish": (
        {"idx": 1, "source_code": "x", "source_lang": "java", "difficulty": "easy"},
        ("Make this program faster.\n\n```\nx\n```",),
    ),
    "CodeEditorBench, switch": (
        {
            "idx": 1,
            "similar_source_code": "x",
            "public_target_tests_input": "2",
            "public_target_tests_output": "4",
        },
        ("Change this program so that it makes 4 of 2.\n\n```\nx\n```",),
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
    packed = tmp_path / "packed.jsonl.gz"
    packed.write_bytes(gzip.compress(lines.read_bytes()))
    assert [question.turns for question in read_questions(packed)] == [turns, turns]
    assert read_questions(packed)[0].category == record.get("category", "packed")


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"unknown": "x"}', '{"prompt": 5}'])
def test_other_files_are_refused_by_name(text: str, tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(text)
    with pytest.raises(QuestionError, match=r"bad\.jsonl"):
        read_questions(path)


def test_a_file_that_only_says_that_it_is_packed_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "bad.jsonl.gz"
    for content in (b"{}", gzip.compress(b'{"prompt": "x"}')[:-4]):
        path.write_bytes(content)
        with pytest.raises(QuestionError, match=r"bad\.jsonl\.gz"):
            read_questions(path)


def test_rates_are_means_over_questions_and_acceptance_is_pooled() -> None:
    plain = Answers([10.0, 30.0], num_decoded=100, num_rounds=100)
    other = Answers([30.0, 30.0], num_decoded=100, num_rounds=40)
    figures = report({"all": {"plain": plain, "other": other}})["all"]
    assert figures["plain"]["tokens_per_s"] == 20.0
    assert figures["other"] == {
        "tokens_per_s": 30.0, "speed_up": 1.5, "acceptance_length": 2.5,
    }  # fmt: skip
