"""`make install` with stand-ins for python: what it makes, repairs and leaves alone."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HALF_MADE = "#!/bin/sh\necho 'No module named pip' >&2\nexit 1\n"
WHOLE = "#!/bin/sh\nexit 0\n"
PYTHON = """#!/bin/sh
case "$*" in *venv*) echo "$*" >>venvs ;; esac
case "$*" in {works})
    mkdir -p .venv/bin
    printf '#!/bin/sh\\nexit 0\\n' >.venv/bin/python
    chmod +x .venv/bin/python ;;
esac
{end}
"""


def install(
    folder: Path, venv_python: str | None, works: str = "*venv*", end: str = ""
) -> tuple[subprocess.CompletedProcess[str], list[str]]:
    """The run, and the venvs that it asked for."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, folder)
    scripts = {"python3": PYTHON.format(works=works, end=end), ".venv/bin/python": venv_python}
    for name, script in scripts.items():
        if script is not None:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(script)
            (folder / name).chmod(0o700)
    done = subprocess.run(
        ["make", "install", "PYTHON=./python3"],
        cwd=folder,
        env={name: value for name, value in os.environ.items() if not name.startswith("MAKE")},
        capture_output=True,
        text=True,
        timeout=60,
    )
    venvs = folder / "venvs"
    return done, venvs.read_text().splitlines() if venvs.exists() else []


@pytest.mark.parametrize("venv_python", [None, HALF_MADE])
def test_a_venv_without_a_working_pip_is_made(tmp_path: Path, venv_python: str | None) -> None:
    done, venvs = install(tmp_path, venv_python)
    assert (done.returncode, done.stderr) == (0, "")
    assert venvs == ["-m venv .venv"]


def test_a_venv_that_cannot_be_repaired_is_made_afresh(tmp_path: Path) -> None:
    done, venvs = install(tmp_path, HALF_MADE, works="*--clear*")
    assert (done.returncode, done.stderr) == (0, "")
    assert venvs == ["-m venv .venv", "-m venv --clear .venv"]


def test_a_whole_venv_is_left_alone(tmp_path: Path) -> None:
    done, venvs = install(tmp_path, WHOLE)
    assert (done.returncode, venvs) == (0, [])


def test_a_python_that_makes_no_venv_is_one_line(tmp_path: Path) -> None:
    """Every time, and not only the first."""
    fails = 'case "$*" in *venv*) exit 1 ;; esac'
    for venv_python in (None, HALF_MADE):
        done, _ = install(tmp_path, venv_python, works="none", end=fails)
        assert done.returncode == 2
        assert done.stderr.startswith(".venv cannot be made: is there disk space, and the venv")
