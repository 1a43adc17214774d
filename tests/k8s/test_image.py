"""The Dockerfile, read: it is not built here, where there is no container runtime."""

from __future__ import annotations

import fnmatch
import itertools
import re
import subprocess
import sys
import tomllib
from pathlib import Path

from manifests import ROOT, Rendered

from deployments.startup import SERVE_SETTINGS

LINES = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
STEPS = [
    (word, rest)
    for word, _, rest in (line.partition(" ") for line in LINES if line and line[0] != "#")
]


def of(instruction: str) -> list[str]:
    return [rest for word, rest in STEPS if word == instruction]


def test_a_linter_finds_nothing() -> None:
    linter = Path(sys.executable).with_name("hadolint")
    command = [str(linter), "--no-color", str(ROOT / "Dockerfile")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_images_and_packages_have_versions() -> None:
    assert len(of("FROM")) == 2
    for base in of("FROM"):
        assert re.search(r":\d+\.\d+\.\d+", base)
    for command in of("RUN"):
        for install in re.findall(r"pip install [^&]*", command):
            assert "--constraint constraints.txt" in install


def test_the_last_stage_runs_as_a_user_that_pods_run_as(overlay: Rendered) -> None:
    last = STEPS[max(i for i, (word, _) in enumerate(STEPS) if word == "FROM") :]
    (user,) = (rest for word, rest in last if word == "USER")
    for template in overlay.templates():
        if template.owner == "RayService":
            context = template.spec["securityContext"]
            assert user == f"{context['runAsUser']}:{context['runAsGroup']}"


def test_everything_that_is_copied_is_here_and_not_ignored() -> None:
    text = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    kept = [line.removeprefix("!") for line in text if line.startswith("!")]
    for step in of("COPY"):
        if not step.startswith("--from"):
            for source in step.split()[:-1]:
                assert (ROOT / source).exists()
                assert any(fnmatch.fnmatch(source, pattern) for pattern in kept)


def test_every_package_of_the_wheel_is_copied() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    packages = {name.split(".")[0] for name in project["tool"]["setuptools"]["packages"]}
    copied = {source for step in of("COPY") for source in step.split()[:-1]}
    assert packages <= copied


def test_the_image_holds_no_secret() -> None:
    assert of("ARG") == []
    for setting in of("ENV"):
        assert not re.search(r"password|secret|token=", setting, re.IGNORECASE)


def test_serve_is_set_as_it_is_without_an_image() -> None:
    assert set(itertools.starmap("{}={}".format, SERVE_SETTINGS.items())) <= set(
        " ".join(of("ENV")).split()
    )


def test_package_lists_are_not_kept() -> None:
    for command in of("RUN"):
        assert ("apt-get update" in command) == ("rm -rf /var/lib/apt/lists/*" in command)
