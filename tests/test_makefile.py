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
    folder: Path,
    venv_python: str | None,
    works: str = "*venv*",
    end: str = "",
    path: str | None = None,
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
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
    done = subprocess.run(
        ["make", "install", "PYTHON=./python3"],
        cwd=folder,
        env=environment | {"PATH": path or without_apt(folder)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    venvs = folder / "venvs"
    return done, venvs.read_text().splitlines() if venvs.exists() else []


def without_apt(folder: Path) -> str:
    """A PATH with what `make install` needs, and no more."""
    (folder / "tools").mkdir(exist_ok=True)
    for name in ("make", "sh", "cat", "chmod", "id", "mkdir", "tail", "touch"):
        place, found = folder / "tools" / name, shutil.which(name)
        assert found is not None
        if not place.exists():
            place.symlink_to(found)
    return str(folder / "tools")


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


APT = """#!/bin/sh
echo "$RUNLEVEL $*" >>asked
echo 'E: some' >&2
echo 'E: no network' >&2
exit {status}
"""


def with_apt(folder: Path, user: int, status: int) -> str:
    path = without_apt(folder)
    for name, script in (("id", f"#!/bin/sh\necho {user}\n"), ("apt-get", APT)):
        place = Path(path, name)
        place.unlink(missing_ok=True)
        place.write_text(script.format(status=status) if name == "apt-get" else script)
        place.chmod(0o700)
    return path


@pytest.mark.skipif(Path("/run/systemd/system").exists(), reason="a service would be started")
def test_debian_s_redis_is_installed_quietly_and_is_no_condition(tmp_path: Path) -> None:
    asked = tmp_path / "asked"
    done, _ = install(tmp_path, WHOLE, path=with_apt(tmp_path, user=0, status=0))
    assert asked.read_text().splitlines() == [
        "1 -qq update",
        "1 -qq install --no-install-recommends redis-server",
    ]
    assert (done.returncode, done.stderr) == (0, "")
    assert "E:" not in done.stdout
    (tmp_path / ".venv/.installed").unlink()
    done, _ = install(tmp_path, WHOLE, path=with_apt(tmp_path, user=0, status=100))
    reason = "no redis-server from apt, tests on it are skipped: E: no network"
    assert done.returncode == 0
    assert reason in done.stdout.splitlines()


def test_debian_s_redis_is_left_to_those_who_may_and_have_it_not(tmp_path: Path) -> None:
    path = with_apt(tmp_path, user=1000, status=0)
    assert install(tmp_path, WHOLE, path=path)[0].returncode == 0
    path = with_apt(tmp_path, user=0, status=0)
    Path(path, "redis-server").symlink_to("/bin/sh")
    (tmp_path / ".venv/.installed").unlink()
    assert install(tmp_path, WHOLE, path=path)[0].returncode == 0
    assert not (tmp_path / "asked").exists()
