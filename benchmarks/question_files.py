"""Questions of published sets, from local files: nothing is fetched, and nothing trains on them.

Reads JSON Lines or one JSON list, and knows by its keys what a record is: Spec-Bench and MT-bench
(`turns`), HumanEval, GSM8K, Alpaca, DebugBench, CodeEditorBench, or plain `prompt`.
"""

from __future__ import annotations

import json
import string
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_FORMS = (
    "{instruction}\n\n{input}",
    "Fix the bug in this program.\n\nTask: {question}\n\n```\n{buggy_code}\n```",
    "Fix the bug in this {code_language} program.\n\n```\n{incorrect_solutions}\n```",
    "Translate this program from {source_lang} to {target_lang}.\n\n```\n{source_code}\n```",
    "Make this program faster.\n\n```\n{source_code}\n```",
    "Change this program so that it solves a similar task.\n\n```\n{similar_source_code}\n```",
    "{instruction}",
    "{question}",
    "{prompt}",
)


class QuestionError(Exception):
    """A file of questions that cannot be used; names the file and the record."""


@dataclass(frozen=True, slots=True)
class Question:
    """What the user says, turn by turn; `category` is the file's name where it has none."""

    category: str
    turns: tuple[str, ...]


def read_questions(path: Path) -> list[Question]:
    """All of them, in order; raises QuestionError."""
    try:
        text = path.read_text(encoding="utf-8")
        is_list = text.lstrip().startswith("[")
        records = (
            json.loads(text)
            if is_list
            else [*map(json.loads, filter(str.strip, text.splitlines()))]
        )
    except (OSError, ValueError) as error:
        raise QuestionError(f"{path}: {error}") from error
    if not records:
        raise QuestionError(f"{path}: it has no questions")
    return [_question(record, f"{path}, record {i}", path.stem) for i, record in enumerate(records)]


def _question(record: object, where: str, name: str) -> Question:
    if not isinstance(record, Mapping):
        raise QuestionError(f"{where}: not an object")
    category = str(record.get("category", name))
    turns = record.get("turns")
    if isinstance(turns, list) and turns:
        return Question(category, tuple(map(str, turns)))
    for form in _FORMS:
        if all(isinstance(record.get(field), str) for field in _fields(form)):
            return Question(category, (form.format_map(record).strip(),))
    raise QuestionError(f"{where}: none of the known forms has the keys {sorted(record)}")


def _fields(form: str) -> list[str]:
    return [field for _, field, _, _ in string.Formatter().parse(form) if field]
