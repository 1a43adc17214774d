"""A conversion that ends early leaves nothing, at the latest when the next one begins."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from engine.errors import ModelRefusedError
from engine.staged_folder import staged_folder

ROOT = Path(__file__).parents[2]
SLOW_CONVERSION = textwrap.dedent(
    """
    import sys, time, types
    from engine import prepare
    from engine.staged_folder import staged_folder

    def convert_gguf(gguf, output):
        with staged_folder(output) as folder:
            (folder / "half").write_text("x")
            print("up", flush=True)
            time.sleep(60)

    sys.modules["engine.gguf"] = types.SimpleNamespace(convert_gguf=convert_gguf)
    sys.exit(prepare.main())
    """
)


@contextmanager
def converting(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process amid a conversion to tmp_path/cache."""
    gguf = tmp_path / "model.gguf"
    gguf.write_bytes(b"GGUF")
    with subprocess.Popen(
        [sys.executable, "-c", SLOW_CONVERSION, str(gguf)],
        cwd=ROOT,
        env={**os.environ, "HEDGEROW_CACHE": str(tmp_path / "cache")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "up\n"
            assert len(list((tmp_path / "cache").iterdir())) == 1
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_a_conversion_that_leaves_nothing(
    tmp_path: Path, number: signal.Signals
) -> None:
    with converting(tmp_path) as process:
        process.send_signal(number)
        process.send_signal(signal.SIGTERM)  # a shell's, and then its parent's
        assert process.wait(20) == 128 + number
        assert process.stderr is not None
        assert "Traceback" not in process.stderr.read()
    assert list((tmp_path / "cache").iterdir()) == []


def test_what_a_killed_conversion_left_is_removed_by_the_next_one(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    with converting(tmp_path) as process:
        process.kill()
        process.wait()
    assert len(list(cache.iterdir())) == 1
    with staged_folder(cache / "model") as folder:
        (folder / "whole").touch()
        assert list(cache.iterdir()) == [folder]
    assert [path.name for path in cache.rglob("*")] == ["model", "whole"]


def test_a_conversion_that_goes_on_is_left_alone(tmp_path: Path) -> None:
    with converting(tmp_path) as process, staged_folder(tmp_path / "cache" / "model"):
        assert len(list((tmp_path / "cache").glob(".*/half"))) == 1
        assert process.poll() is None


def test_of_two_writers_the_first_to_finish_stays(tmp_path: Path) -> None:
    output = tmp_path / "model"
    with staged_folder(output) as slow:
        (slow / "slow").touch()
        with staged_folder(output) as quick:
            (quick / "quick").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["model", "quick"]


def test_a_failed_writer_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), staged_folder(tmp_path / "model") as folder:
        os.mkdir(folder / "half" / "below")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("cache", ["file", "file/below"])
def test_a_cache_that_is_no_folder_is_one_line(tmp_path: Path, cache: str) -> None:
    (tmp_path / "file").touch()
    gguf = tmp_path / "model.gguf"
    gguf.write_bytes(b"GGUF")
    done = subprocess.run(
        [sys.executable, "-m", "engine.prepare", str(gguf)],
        cwd=ROOT,
        env={**os.environ, "HEDGEROW_CACHE": str(tmp_path / cache)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    first, second = done.stderr.splitlines()
    assert first == "converting model.gguf (once)"
    assert second.startswith(f"{gguf}: cannot be converted: ")
    assert str(tmp_path / "file") in second


def test_a_damaged_conversion_is_named(tmp_path: Path) -> None:
    from engine.gguf import convert_gguf  # loads torch, which most of these tests do without

    gguf, output = tmp_path / "model.gguf", tmp_path / "model"
    gguf.write_bytes(b"GGUF")
    output.mkdir()
    with pytest.raises(ModelRefusedError, match="is there already; delete it"):
        convert_gguf(gguf, output)
