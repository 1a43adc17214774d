"""`hedgerow check`: sound files pass, no value breaks it, and its status says what it found."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from serve_documents import app, document, target_settings

from cluster.check import check_document, check_file
from cluster.cli import main

ROOT = Path(__file__).parents[2]


def test_a_sound_file_has_no_problems() -> None:
    assert check_document(document()) == []


def test_the_application_as_serve_build_writes_it_takes_any_drafter() -> None:
    """Its args are those of the repository's own file, which is not known here."""
    content = document()
    app(content).update(import_path="deployments.app:app", args={})
    assert check_document(content) == []


PATHS: list[tuple[str | int, ...]] = [(), ("http_options",), ("applications",)]
PATHS += [("applications", 0, *rest) for rest in ((), ("args",), ("deployments",))]
PATHS += [(*PATHS[3], "args", *rest) for rest in (("target",), ("drafters",), ("drafters", 0))]
PATHS += [(*PATHS[5], 1, *rest) for rest in ((), ("user_config",), ("user_config", "selector"))]


WRONG: list[Any] = [None, True, -1, 0.5, "x", [], [[]], {}, {1: 2}, {None: [{}]}, [{"name": []}]]


@pytest.mark.parametrize("path", PATHS, ids=str)
def test_no_value_of_another_type_breaks_the_check(path: tuple[str | int, ...]) -> None:
    place: Any = document()
    for key in path:
        place = place[key]
    for key in place if isinstance(place, dict) else range(len(place)):
        for value in WRONG:
            content: Any = document()
            inner = content
            for step in path:
                inner = inner[step]
            inner[key] = value
            assert all("\n" not in str(problem) for problem in check_document(content))


def test_the_repository_s_own_file_has_no_problems() -> None:
    assert check_file(ROOT / "ray_config.yaml") == []


@pytest.mark.parametrize("word", ["on", "off"])
def test_bare_on_and_off_are_words_not_booleans(word: str) -> None:
    content = document()
    target_settings(content).update(yaml.safe_load(f"speculation: {word}"))
    assert check_document(content) == []


def write(tmp_path: Path, text: str) -> str:
    (tmp_path / "config.yaml").write_text(text)
    return str(tmp_path / "config.yaml")


def test_status_is_zero_for_a_sound_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", write(tmp_path, yaml.safe_dump(document()))]) == 0
    assert capsys.readouterr().out.endswith("config.yaml: ok\n")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a: [", "is not YAML"),
        ("- 1", "no mapping"),
        ("http_options: {port: 1, port: 2}", "the key 'port' is given twice"),
        ("? [a]\n: 1", "is not YAML"),
    ],
)
def test_status_is_one_and_the_reason_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, expected: str
) -> None:
    assert main(["check", write(tmp_path, text)]) == 1
    printed = capsys.readouterr().err
    assert expected in printed
    assert printed.count("\n") == 1


def test_an_absent_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", str(tmp_path / "none.yaml")]) == 1
    assert "none.yaml" in capsys.readouterr().err


def test_wrong_usage_has_status_two() -> None:
    with pytest.raises(SystemExit) as caught:
        main(["chek", "x"])
    assert caught.value.code == 2


def test_checking_imports_neither_ray_nor_torch() -> None:
    program = "import sys, cluster.cli; print({'ray', 'torch'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stderr
