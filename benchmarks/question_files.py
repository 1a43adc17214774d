"""Questions of published sets, from local files: nothing is fetched, and nothing trains on them.

Reads JSON Lines or one JSON list, also packed by gzip (`.gz`), and knows by its keys what a record
is: Spec-Bench and MT-bench (`turns`), HumanEval, GSM8K, Alpaca, DebugBench, CodeEditorBench's four
files (debug, translate, polish, switch), or plain `prompt`.
"""

from __future__ import annotations

import gzip
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
    "Change this program so that it makes {public_target_tests_output} of "
    "{public_target_tests_input}.\n\n```\n{similar_source_code}\n```",
    "Change this program so that it solves a similar task.\n\n```\n{similar_source_code}\n```",
    "{instruction}",
    "{question}",
    "{prompt}",
)


class QuestionError(Exception):
    """A file of questions that cannot be used; names the file and the record."""


@dataclass(frozen=True, slots=True)
class Question:
    """What the user says, turn by turn; `category` is the file's name where it has none.

    `where` names file and record.
    """

    category: str
    turns: tuple[str, ...]
    where: str


def read_questions(path: Path) -> list[Question]:
    """All of them, in order; raises QuestionError."""
    try:
        content = path.read_bytes()
        text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode()
        is_list = text.lstrip().startswith("[")
        records = (
            json.loads(text)
            if is_list
            else [*map(json.loads, filter(str.strip, text.splitlines()))]
        )
    except (OSError, EOFError, ValueError) as error:
        raise QuestionError(f"{path}: {error}") from error
    if not records:
        raise QuestionError(f"{path}: it has no questions")
    name = path.name.partition(".")[0]
    return [
        _question(record, f"{path}, record {i}", name) for i, record in enumerate(records, start=1)
    ]


def _question(record: object, where: str, name: str) -> Question:
    if not isinstance(record, Mapping):
        raise QuestionError(f"{where}: not an object")
    category = str(record.get("category", name))
    turns = record.get("turns")
    if isinstance(turns, list) and turns:
        return Question(category, tuple(map(str, turns)), where)
    for form in _FORMS:
        if all(isinstance(record.get(field), str) for field in _fields(form)):
            return Question(category, (form.format_map(record).strip(),), where)
    raise QuestionError(f"{where}: none of the known forms has the keys {sorted(record)}")


def _fields(form: str) -> list[str]:
    return [field for _, field, _, _ in string.Formatter().parse(form) if field]
