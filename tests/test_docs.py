"""What the documents name exists: paths, links, make targets, modules, commands, settings."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.cli import main
from cluster.config import ClusterConfig

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
MAX_LINES = {"README.md": 150, "docs/architecture.md": 60}
PACKAGES = ("benchmarks", "cluster", "deployments", "engine", "policies", "training")
FOLDERS = (*PACKAGES, "docs", "k8s", "models", "tests", ".ci")

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\]\(([^)#\s]+)[^)]*\)")
FILE = re.compile(r"[\w-][\w.-]*\.(?:py|md|yaml|toml|txt|lua|sh)|Makefile|LICENSE")
DOTTED = re.compile(rf"(?:{'|'.join(PACKAGES)})(?:\.\w+)+(?::\w+)?")
HOME = re.compile(r"/(?:home|Users|root)/\w")

every_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)


def spans(text: str) -> list[str]:
    """The inline code of a document."""
    return SPAN.findall(FENCE.sub("", text))


def blocks(text: str, language: str) -> list[str]:
    return [body for found, body in FENCE.findall(text) if found == language]


def code(text: str) -> list[str]:
    """All code of a document: inline, and line by line what is fenced."""
    return spans(text) + [line for _, body in FENCE.findall(text) for line in body.splitlines()]


def is_path(span: str) -> bool:
    first, slash, _ = span.partition("/")
    return " " not in span and (bool(FILE.fullmatch(span)) or (bool(slash) and first in FOLDERS))


def tree(block: str) -> Iterator[str]:
    """The paths of a file tree: two spaces a level, folders end in a slash, comments follow."""
    folders: list[str] = []
    for line in block.splitlines():
        depth = (len(line) - len(line.lstrip())) // 2
        name = line.split()[0]
        folders[depth:] = [name.rstrip("/")]
        yield "/".join(folders)


def trees(text: str) -> list[str]:
    """The text blocks whose every line starts with a file or folder."""
    starts = re.compile(rf" *(?:{FILE.pattern}|[\w.-]+/)(?: |$)")
    return [body for body in blocks(text, "text") if all(map(starts.match, body.splitlines()))]


def make_targets() -> set[str]:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    return set(re.findall(r"^([\w-]+):(?!=)", makefile, re.MULTILINE))


def module_file(module: str) -> Path | None:
    stem = ROOT.joinpath(*module.split("."))
    candidates = (stem.with_suffix(".py"), stem / "__init__.py")
    return next((path for path in candidates if path.is_file()), None)


def defined_in(path: Path) -> set[str]:
    """The names that a module defines at its top level."""
    names: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return names


def resolves(dotted: str) -> bool:
    """`package.module`, `package.module:name` or `package.module.name`."""
    module, _, name = dotted.partition(":")
    if not name and module_file(module) is None:
        module, _, name = module.rpartition(".")
    path = module_file(module)
    return path is not None and (not name or name in defined_in(path))


def tracked_files() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


@every_document
def test_every_path_exists(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    named = [span for span in spans(text) if is_path(span)]
    named += [path for block in trees(text) for path in tree(block)]
    places = [ROOT, document.parent]
    assert [path for path in named if not any((place / path).exists() for place in places)] == []


@every_document
def test_every_link_leads_somewhere(document: Path) -> None:
    links = LINK.findall(document.read_text(encoding="utf-8"))
    local = [link for link in links if not link.startswith(("http://", "https://", "mailto:"))]
    assert [link for link in local if not (document.parent / link).exists()] == []


@every_document
def test_every_make_target_exists(document: Path) -> None:
    lines = code(document.read_text(encoding="utf-8"))
    named = {target for line in lines for target in re.findall(r"\bmake ([a-z][\w-]*)", line)}
    assert named - (make_targets() if named else set()) == set()


@every_document
def test_every_module_that_is_run_exists(document: Path) -> None:
    lines = code(document.read_text(encoding="utf-8"))
    named = {module for line in lines for module in re.findall(r"python -m ([\w.]+)", line)}
    missing = [name for name in named if not (module_file(name) or importlib.util.find_spec(name))]
    assert missing == []


@every_document
def test_every_dotted_name_exists(document: Path) -> None:
    named = [span for span in spans(document.read_text(encoding="utf-8")) if DOTTED.fullmatch(span)]
    assert [name for name in named if not resolves(name)] == []


@every_document
def test_every_command_of_ours_exists(document: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = code(document.read_text(encoding="utf-8"))
    for command in {
        name for line in lines for name in re.findall(r"^(?:\$ )?hedgerow (\w+)", line)
    }:
        with pytest.raises(SystemExit) as ended:
            main([command, "--help"])
        assert ended.value.code == 0, f"hedgerow {command}: {capsys.readouterr().err}"


def test_the_readmes_configuration_is_valid() -> None:
    documents: list[Any] = [
        yaml.safe_load(block) for block in blocks(DOCUMENTS[0].read_text(encoding="utf-8"), "yaml")
    ]
    assert documents
    for document in documents:
        ClusterConfig.model_validate(document)


@pytest.mark.parametrize(("name", "most"), MAX_LINES.items())
def test_a_document_stays_short(name: str, most: int) -> None:
    assert len((ROOT / name).read_text(encoding="utf-8").splitlines()) <= most


def test_no_file_names_a_place_on_this_machine() -> None:
    found = []
    for path in tracked_files():
        text = path.read_text(encoding="utf-8", errors="ignore")
        if HOME.search(text) or (len(ROOT.parts) > 2 and f"{ROOT}/" in text):
            found.append(str(path.relative_to(ROOT)))
    assert found == []


SAMPLE = """
See `engine/nowhere.py`, `application/json`, `a b.py` and [this](nowhere.md).

```text
engine/        a folder
  nowhere.py   a file
  drafters/
    suffix.py
README.md
```

```text
a picture/
   |
```

```sh
make nothing
```
"""


def test_what_is_missing_would_be_found() -> None:
    assert [span for span in spans(SAMPLE) if is_path(span)] == ["engine/nowhere.py"]
    assert LINK.findall(SAMPLE) == ["nowhere.md"]
    (block,) = trees(SAMPLE)
    paths = ["engine", "engine/nowhere.py", "engine/drafters", "engine/drafters/suffix.py"]
    assert list(tree(block)) == [*paths, "README.md"]
    assert "make nothing" in code(SAMPLE)
    assert resolves("policies.fixed:FixedSelector")
    assert resolves("policies.fixed.FixedSelector")
    assert not resolves("policies.fixed:Nothing")
    assert not resolves("policies.nothing")
