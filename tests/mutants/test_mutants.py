"""Every small mistake in `mutants.toml` is noticed by the tests named beside it.

Each mutant is an exact replacement in a copy of the packages; its tests run there, in a process of
their own, and must fail. The copy as it is must pass all of them. Of neighbours in a file the first
runs; with HEDGEROW_MISTAKES=all, as `make prove-tests` has it, all of them do.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from operator import attrgetter
from pathlib import Path
from queue import SimpleQueue

import pytest

ROOT = Path(__file__).parents[2]
COPIED = ("engine", "policies", "pyproject.toml", "tests/engine", "tests/mutants", "tests/support")
NUM_WORKERS = 1 if "PYTEST_XDIST_WORKER" in os.environ else 2
TIMEOUT_S = 400.0  # kernels are compiled in it
TESTS_FAILED = 1  # pytest's exit status; others mean that the tests did not run


@dataclass(frozen=True, slots=True)
class Mutant:
    name: str
    file: str
    old: str
    new: str
    killers: tuple[str, ...]

    @property
    def needs_torch(self) -> bool:
        """Those that take longest start first."""
        return any("toy" in killer or "attention" in killer for killer in self.killers)


@dataclass(frozen=True, slots=True)
class Run:
    status: int
    output: str


def read_mutants() -> list[Mutant]:
    data = tomllib.loads((Path(__file__).parent / "mutants.toml").read_text(encoding="utf-8"))
    return [
        Mutant(m["name"], m["file"], m["old"], m["new"], tuple(m["killers"]))
        for m in data["mutant"]
    ]


MUTANTS = read_mutants()
RUN = (
    MUTANTS if os.environ.get("HEDGEROW_MISTAKES") == "all"
    else [MUTANTS[0], *(now for last, now in pairwise(MUTANTS) if now.file != last.file)]
)  # fmt: skip
UNCHANGED = Mutant(
    "unchanged", "", "", "", tuple(sorted({killer for m in RUN for killer in m.killers}))
)


def copy_tree(folder: Path) -> None:
    ignored = shutil.ignore_patterns("__pycache__", ".*")
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / name, ignore=ignored, dirs_exist_ok=True)
        else:
            shutil.copy(ROOT / name, folder / name)


def run_killers(mutant: Mutant, folder: Path) -> Run:
    copy_tree(folder)
    if mutant.file:
        path = folder / mutant.file
        source = path.read_text(encoding="utf-8")
        path.write_text(source.replace(mutant.old, mutant.new), encoding="utf-8")
    environment = {
        **os.environ,
        "PYTHONPATH": str(folder),
        "OMP_NUM_THREADS": "1",
        "PYTHONDONTWRITEBYTECODE": "1",  # the next mutant has the same folder
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # nothing is needed of them, and they load slowly
    }
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, "--rootdir", str(folder), *mutant.killers],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    return Run(done.returncode, done.stdout[-3000:])


def asked_for(items: Sequence[pytest.Item]) -> list[Mutant]:
    """The mutants that this session's selection of tests is about."""
    found: list[Mutant] = []
    for item in items:
        if item.name == test_the_unchanged_copy_passes.__name__:
            found.append(UNCHANGED)
        if isinstance(item, pytest.Function) and item.originalname == "test_a_mutant_is_killed":
            mutant = item.callspec.params["mutant"]
            assert isinstance(mutant, Mutant)
            found.append(mutant)
    return sorted(found, key=lambda mutant: (mutant is not UNCHANGED, not mutant.needs_torch))


@pytest.fixture(scope="module")
def runs(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Future[Run]]]:
    """The runs of all mutants asked for, as many at a time as there are cores for.

    In as many folders, where compiled kernels stay that a mutant does not change.
    """
    folders: SimpleQueue[Path] = SimpleQueue()
    for _ in range(NUM_WORKERS):
        folders.put(tmp_path_factory.mktemp("copy"))

    def run_in_one(mutant: Mutant) -> Run:
        folder = folders.get()
        try:
            return run_killers(mutant, folder)
        finally:
            folders.put(folder)

    with ThreadPoolExecutor(NUM_WORKERS) as workers:
        yield {
            mutant.name: workers.submit(run_in_one, mutant)
            for mutant in asked_for(request.session.items)
        }
        workers.shutdown(cancel_futures=True)


@pytest.mark.parametrize("mutant", MUTANTS, ids=attrgetter("name"))
def test_a_mutants_text_occurs_once(mutant: Mutant) -> None:
    source = (ROOT / mutant.file).read_text(encoding="utf-8")
    assert source.count(mutant.old) == 1
    assert mutant.old != mutant.new


def test_no_mutant_is_listed_twice() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS)
    assert len({(mutant.file, mutant.old, mutant.new) for mutant in MUTANTS}) == len(MUTANTS)


def test_the_unchanged_copy_passes(runs: dict[str, Future[Run]]) -> None:
    run = runs[UNCHANGED.name].result()
    assert run.status == 0, run.output


@pytest.mark.parametrize("mutant", RUN, ids=attrgetter("name"))
def test_a_mutant_is_killed(mutant: Mutant, runs: dict[str, Future[Run]]) -> None:
    run = runs[mutant.name].result()
    assert run.status == TESTS_FAILED, run.output
