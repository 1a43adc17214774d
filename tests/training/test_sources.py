"""Prompts are told by their number, and files that cannot be used by their line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from training.domains import Domain, DomainError, load_domain, names
from training.sources import SourceError, Sources, licences_of, read_conversations

SQL = Domain("sql", "The user asks about SQL.", ("Select {what}.",), {"what": ("{n} rows", "all"),
                                                                      "n": ("3", "4")})  # fmt: skip


@pytest.mark.parametrize("name", names())
def test_every_domain_asks_the_same_by_number_and_much(name: str) -> None:
    prompts = [load_domain(name).prompt(i) for i in range(300)]
    assert prompts == [load_domain(name).prompt(i) for i in range(300)]
    assert len(set(prompts)) > 150
    assert not any("{" in prompt and name != "code" for prompt in prompts)


def test_a_domain_of_ones_own_is_a_file(tmp_path: Path) -> None:
    path = tmp_path / "sql.json"
    path.write_text(json.dumps({"system": "The user asks about SQL."}))
    assert load_domain(str(path)) == Domain("sql", "The user asks about SQL.", (), {})
    with pytest.raises(DomainError, match="has no templates"):
        load_domain(str(path)).prompt(0)
    path.write_text(json.dumps({"system": "SQL", "templates": ["Select {what}."]}))
    with pytest.raises(DomainError, match=r"no words for \{what\}"):
        load_domain(str(path))
    with pytest.raises(DomainError, match="expected one of"):
        load_domain("sqll")


def test_sources_take_turns_and_repeat_themselves_by_number(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]
    path.write_text(
        json.dumps({"prompt": "What?"}) + "\n\n" + json.dumps({"messages": turns}) + "\n"
    )
    sources = Sources(["seeds", str(path), "self"], SQL, 0)
    asked = [sources.conversation(i) for i in range(9)]
    assert asked == [
        Sources(["seeds", str(path), "self"], SQL, 0).conversation(i) for i in range(9)
    ]
    assert {each.messages[-1]["content"] for each in asked[0::3]} <= {
        "Select all.", "Select 3 rows.", "Select 4 rows.",
    }  # fmt: skip
    assert {each.messages[-1]["content"] for each in asked[1::3]} == {"What?", "Hi"}
    assert all(
        each.is_invented and each.messages[0]["content"] == SQL.system for each in asked[2::3]
    )


def test_a_log_is_read_up_to_the_users_last_turn(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    roles = ["system", "user", "assistant", "user", "assistant"]
    messages = [{"role": role, "content": str(i)} for i, role in enumerate(roles)]
    path.write_text(json.dumps({"model": "m", "messages": messages}))
    ((*_, last),) = read_conversations(path)
    assert last == {"role": "user", "content": "3"}


@pytest.mark.parametrize("line", ["{", "{}", '{"messages": 3}', '{"messages": []}', "[]"])
def test_a_line_that_is_no_prompt_is_named(line: str, tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"prompt": "a"}\n' + line + "\n")
    with pytest.raises(SourceError, match=r"log\.jsonl:2: expected a prompt or messages"):
        read_conversations(path)


def test_a_file_without_prompts_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="No such file"):
        read_conversations(tmp_path / "none.jsonl")
    (tmp_path / "empty.jsonl").write_text("\n")
    with pytest.raises(SourceError, match="no prompts"):
        read_conversations(tmp_path / "empty.jsonl")


def test_what_prompts_are_and_their_licence_is_known_for_the_card(tmp_path: Path) -> None:
    path, other = tmp_path / "sums.jsonl", tmp_path / "log.jsonl"
    (tmp_path / "sums.licence").write_text("Sums of a school (MIT)\nmore about it\n")
    names = ["seeds", "self", str(path), str(other)]
    assert licences_of(names, load_domain("math")) == (
        "templates of math (Apache-2.0, written for this project)",
        "the target's own inventions",
        "Sums of a school (MIT)",
        "log.jsonl (licence not stated)",
    )
    assert licences_of(["seeds"], SQL) == ("templates of sql (licence not stated)",)
