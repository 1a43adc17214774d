"""The command behind `make serve`: one line for each thing that is wrong before it starts."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import textwrap
import time
from collections import namedtuple
from pathlib import Path

import psutil
import pytest

from deployments.preflight import PreflightError, check_disk, check_port

ROOT = Path(__file__).parents[2]


def serve(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "deployments.serve", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )


def edited(tmp_path: Path, old: str, new: str) -> str:
    text = (ROOT / "ray_config.yaml").read_text()
    assert old in text
    path = tmp_path / "ray_config.yaml"
    path.write_text(text.replace(old, new))
    return str(path)


def test_a_busy_port_is_one_line_with_a_way_out() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        done = serve("--port", str(port))
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert f"127.0.0.1:{port} cannot be listened on" in done.stderr
    assert "make serve PORT=8001" in done.stderr


@pytest.mark.parametrize("port", [0, 65536, -1, "8000", None, True])
def test_what_is_no_port_is_refused(port: object) -> None:
    with pytest.raises(PreflightError, match="no number from 1 to 65535"):
        check_port("127.0.0.1", port)


def test_a_wrong_configuration_is_named(tmp_path: Path) -> None:
    done = serve(edited(tmp_path, "numerics:", "numeric:"), "--port", "0")
    assert done.returncode == 1
    assert "args.target.numeric: unknown key; did you mean 'numerics'?" in done.stderr


def test_a_model_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    missing = str(tmp_path / "nothing")
    config = Path(edited(tmp_path, "smollm2-135m-instruct", missing))
    lines = config.read_text().splitlines()
    config.write_text("\n".join(line for line in lines if "path: models/" not in line))
    done = serve(str(config), "--port", "18321")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [f"{missing}: no such folder"]


def test_heads_of_another_model_are_refused_by_name(tmp_path: Path) -> None:
    done = serve(edited(tmp_path, "smollm2-135m-instruct", "another"), "--port", "18321")
    assert done.returncode == 1
    refusals = done.stderr.splitlines()
    for refusal, domain in zip(refusals, ("code", "math", "chat", "edit"), strict=True):
        assert f"'models/{domain}-head' drafts for 'smollm2-135m-instruct', not for" in refusal


def test_a_free_port_passes() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    check_port("127.0.0.1", port)


def test_too_little_disk_is_said_in_megabytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", ["total", "used", "free"])
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(2**40, 2**40, 30 * 2**20))
    check_disk(tmp_path / "a" / "b", 30)
    with pytest.raises(PreflightError, match="31 MB of disk are needed, 30 MB are free"):
        check_disk(tmp_path / "a" / "b", 31)


def test_everything_below_ends_even_what_lost_its_parent_and_ignores_signals() -> None:
    grandchild = (
        "import signal, time; signal.signal(15, 1); print('up', flush=True); time.sleep(99)"
    )
    program = textwrap.dedent(
        f"""
        import subprocess, sys
        from deployments.descendants import Descendants
        descendants = Descendants()
        code = '''
        import subprocess, sys
        child = subprocess.Popen([sys.executable, "-c", {grandchild!r}], stdout=subprocess.PIPE)
        child.stdout.readline()
        print(child.pid, flush=True)
        '''
        import textwrap
        middle = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE,
            start_new_session=True,
        )
        pid = middle.stdout.readline().decode().strip()
        middle.wait()
        descendants.end(1.0)
        print(pid)
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert not psutil.pid_exists(int(done.stdout))


def test_a_stop_while_the_model_is_made_ready_lets_that_clean_up(tmp_path: Path) -> None:
    child = (
        "import pathlib, signal, sys, time\n"
        "signal.signal(15, lambda *_: sys.exit(143))\n"
        f"left = pathlib.Path({str(tmp_path / 'half')!r})\n"
        "try:\n    left.touch()\n    time.sleep(60)\n"
        "finally:\n    time.sleep(0.5)\n    left.unlink()\n"
    )
    wrapper = tmp_path / "python"
    wrapper.write_text(f"#!{sys.executable}\n{child}")
    wrapper.chmod(0o700)
    program = (
        "import sys\nfrom deployments import serve\n"
        f"sys.executable = {str(wrapper)!r}\nsys.argv[1:] = ['--port', '18322']\n"
        "sys.exit(serve.main())\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT) as process:
        deadline_s = time.monotonic() + 30
        while not (tmp_path / "half").exists():
            assert time.monotonic() < deadline_s
            time.sleep(0.05)
        process.terminate()
        assert process.wait(30) == 130
    assert not (tmp_path / "half").exists()
