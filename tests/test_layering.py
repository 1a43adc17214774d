"""One folder, one heavy dependency: DESIGN section 3, read from every import there is.

Imports inside functions count; those under `TYPE_CHECKING` count for the arrows, but not for what
a module loads.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Benchmarks measure the data plane between processes, so that they may use it, and Ray beside it.
ARROWS: Mapping[str, frozenset[str]] = {
    "policies": frozenset(),
    "engine": frozenset({"policies"}),
    "cluster": frozenset({"policies"}),
    "deployments": frozenset({"cluster", "engine", "policies"}),
    "training": frozenset({"engine"}),
    "benchmarks": frozenset({"cluster", "deployments", "engine", "policies"}),
}
FOLDERS = [folder for folder in ARROWS if (ROOT / folder).is_dir()]

MAY_IMPORT: Mapping[str, frozenset[str]] = {
    "torch": frozenset({"engine", "training", "benchmarks"}),
    "transformers": frozenset({"engine", "training", "benchmarks"}),
    "safetensors": frozenset({"engine", "training", "benchmarks"}),
    "tokenizers": frozenset({"engine", "training", "benchmarks"}),
    "gguf": frozenset({"engine", "benchmarks"}),
    "accelerate": frozenset({"engine", "training"}),
    "numba": frozenset({"engine"}),
    "numpy": frozenset({"policies", "engine", "cluster", "deployments", "training", "benchmarks"}),
    "ray": frozenset({"deployments", "benchmarks"}),
    "fastapi": frozenset({"deployments"}),
    "starlette": frozenset({"deployments"}),
    "zmq": frozenset({"deployments", "benchmarks"}),
    "msgspec": frozenset({"deployments"}),
    "redis": frozenset({"cluster"}),
    "yaml": frozenset({"cluster"}),
    "pydantic": frozenset({"cluster", "deployments"}),
}

CLOCKS_AND_IO = frozenset(
    [
        "asyncio",
        "datetime",
        "http",
        "io",
        "logging",
        "multiprocessing",
        "os",
        "pathlib",
        "random",
        "shutil",
        "socket",
        "sqlite3",
        "subprocess",
        "sys",
        "tempfile",
        "threading",
        "time",
        "urllib",
    ]
)
TORCHLESS = [
    module
    for module in ("engine.text", "engine.request", "engine.errors", "deployments.ingress")
    if (ROOT / f"{module.replace('.', '/')}.py").is_file()
]


@dataclass(frozen=True, slots=True)
class Import:
    """`module` as it is written; `names` taken from it; `is_loaded` unless for types only."""

    module: str
    names: tuple[str, ...]
    line: int
    is_loaded: bool

    @property
    def top(self) -> str:
        return self.module.partition(".")[0]


def is_type_checking(node: ast.If) -> bool:
    return ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def imports(node: ast.AST, is_loaded: bool = True) -> Iterator[Import]:
    if isinstance(node, ast.Import):
        for alias in node.names:
            yield Import(alias.name, (), node.lineno, is_loaded)
    elif isinstance(node, ast.ImportFrom):
        names = tuple(alias.name for alias in node.names)
        yield Import("." * node.level + (node.module or ""), names, node.lineno, is_loaded)
    elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(
        ("import_module", "__import__")
    ):
        literal = [arg.value for arg in node.args[:1] if isinstance(arg, ast.Constant)]
        yield Import(str(literal[0]) if literal else "?", (), node.lineno, is_loaded)
    for_types = node.body if isinstance(node, ast.If) and is_type_checking(node) else []
    for child in ast.iter_child_nodes(node):
        yield from imports(child, is_loaded and child not in for_types)


def imports_of(path: Path) -> list[Import]:
    return list(imports(ast.parse(path.read_text(encoding="utf-8"))))


def sources(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def offences(folder: str, is_allowed: Mapping[str, bool]) -> list[str]:
    """Imports of `folder` whose top-level name `is_allowed` maps to False."""
    return [
        f"{path.relative_to(ROOT)}:{found.line} imports {found.module}"
        for path in sources(folder)
        for found in imports_of(path)
        if not is_allowed.get(found.top, True)
    ]


def path_of(module: str) -> Path | None:
    """The file of one of our modules, None for any other."""
    stem = ROOT.joinpath(*module.split("."))
    if module.partition(".")[0] not in ARROWS:
        return None
    candidates = (stem.with_suffix(".py"), stem / "__init__.py")
    return next((path for path in candidates if path.is_file()), None)


def loaded_by(module: str) -> list[str]:
    """`module`, the packages that hold it and all that it loads, as far as they are ours."""
    parts = module.split(".")
    names = [".".join(parts[: size + 1]) for size in range(len(parts))]
    path = path_of(module)
    for found in imports_of(path) if path else ():
        if found.is_loaded:
            names += [found.module, *(f"{found.module}.{name}" for name in found.names)]
    return names


def closure(module: str) -> dict[str, str]:
    """Everything that importing `module` may load through our modules, and who loads it."""
    loader = {module: module}
    waiting = [module]
    while waiting:
        current = waiting.pop()
        for name in loaded_by(current):
            if name not in loader:
                loader[name] = current
                waiting += [name] if path_of(name) else []
    return loader


def test_the_packages_are_found() -> None:
    assert {"policies", "engine", "cluster", "deployments"} <= set(FOLDERS)
    assert all(sources(folder) for folder in ("policies", "engine", "cluster", "deployments"))


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_imports_only_the_folders_its_arrows_lead_to(folder: str) -> None:
    allowed = ARROWS[folder] | {folder}
    assert offences(folder, {other: other in allowed for other in ARROWS}) == []


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_imports_only_its_own_heavy_dependencies(folder: str) -> None:
    assert offences(folder, {name: folder in owners for name, owners in MAY_IMPORT.items()}) == []


@pytest.mark.parametrize("folder", FOLDERS)
def test_imports_are_absolute_and_name_their_module(folder: str) -> None:
    """So that this file sees them all."""
    assert offences(folder, {"": False, "?": False}) == []


def test_policies_touch_neither_clock_nor_world() -> None:
    assert offences("policies", dict.fromkeys(CLOCKS_AND_IO, False)) == []


@pytest.mark.parametrize("module", TORCHLESS)
def test_what_the_ingress_needs_loads_no_torch(module: str) -> None:
    loader = closure(module)
    loaded = {name: by for name, by in loader.items() if name.split(".")[0] == "torch"}
    assert loaded == {}
    heavy = {name: by for name, by in loader.items() if name.split(".")[0] == "transformers"}
    assert heavy == {}


def test_nothing_imports_the_tests() -> None:
    for folder in FOLDERS:
        assert offences(folder, {"tests": False, "conftest": False}) == []


SAMPLE = """
import torch.nn
from engine import text
if TYPE_CHECKING:
    from ray import serve
else:
    import zmq
def late():
    import redis
    importlib.import_module("yaml")
    importlib.import_module(name)
from . import sibling
"""


def test_every_form_of_import_is_seen() -> None:
    found = {each.module: each for each in imports(ast.parse(SAMPLE))}
    assert set(found) == {"torch.nn", "engine", "ray", "zmq", "redis", "yaml", "?", "."}
    assert found["torch.nn"].top == "torch"
    assert found["engine"].names == ("text",)
    assert not found["ray"].is_loaded
    assert found["zmq"].is_loaded
    assert found["redis"].is_loaded


def test_the_closure_reaches_through_our_modules() -> None:
    assert "policies.selector" in closure("policies.rule")
    assert "collections.abc" in closure("policies.rule")
