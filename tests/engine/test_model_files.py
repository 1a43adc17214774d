"""A model is a folder, or a GGUF file that is converted once; what is damaged is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from model_folders import folder_of, saved
from safetensors.torch import load_file, save_file
from tiny_models import tiny_model

from engine.errors import ModelRefusedError
from engine.gguf import convert_gguf
from engine.model_files import converted_dir, gguf_of, read_config, resolve_model
from engine.models import load_model


def test_a_model_without_safetensors_is_refused(tmp_path: Path) -> None:
    folder = folder_of(tiny_model().config, tmp_path)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelRefusedError, match="safetensors"):
        load_model(folder, "cpu", "float32")


DAMAGE: dict[str, Any] = {
    "empty": lambda data: b"",
    "cut short": lambda data: data[: len(data) // 2],
    "header overwritten": lambda data: b"\xff" * 64 + data[64:],
    "not safetensors": lambda data: b"PK\x03\x04" + b"0" * 1000,
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_damaged_weights_are_refused_in_one_line(damage: Any, tmp_path: Path) -> None:
    weights = saved(tmp_path) / "model.safetensors"
    weights.write_bytes(damage(weights.read_bytes()))
    with pytest.raises(ModelRefusedError, match="cannot be loaded") as caught:
        load_model(tmp_path, "cpu", "float32")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("change", ["missing", "other shape"])
def test_weights_that_do_not_fit_the_config_are_refused(change: str, tmp_path: Path) -> None:
    """Loaded all the same, they would be random."""
    reason = "1 weights are missing" if change == "missing" else "cannot be loaded"
    path = saved(tmp_path) / "model.safetensors"
    weights = load_file(path)
    name = "model.layers.1.mlp.up_proj.weight"
    if change == "missing":
        del weights[name]
    else:
        weights[name] = weights[name][:-1].clone()
    save_file(weights, path, {"format": "pt"})
    with pytest.raises(ModelRefusedError, match=reason):
        load_model(tmp_path, "cpu", "float32")


@pytest.mark.parametrize("text", ["", "{", "[]", '"llama"', "\xff"])
def test_a_damaged_config_is_refused_in_one_line(text: str, tmp_path: Path) -> None:
    saved(tmp_path)
    (tmp_path / "config.json").write_text(text, encoding="latin-1")
    with pytest.raises(ModelRefusedError, match=r"config\.json") as caught:
        read_config(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_folder_without_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelRefusedError, match=r"config\.json"):
        load_model(tmp_path, "cpu", "float32")


@pytest.mark.parametrize("name", ["no_such_model", "./no/such", "/no/such", "~/no/such"])
def test_a_folder_that_is_not_there_is_refused_by_name(name: str) -> None:
    with pytest.raises(ModelRefusedError, match="no such folder") as caught:
        resolve_model(name)
    assert caught.value.model == name


def test_a_folder_is_itself(tmp_path: Path) -> None:
    assert resolve_model(str(tmp_path)) == tmp_path


def test_a_gguf_file_that_is_not_there_is_refused_by_name(tmp_path: Path) -> None:
    name = str(tmp_path / "model.gguf")
    assert gguf_of(name) == Path(name)
    assert gguf_of(str(tmp_path)) is None
    with pytest.raises(ModelRefusedError, match=r"model\.gguf: no such file"):
        resolve_model(name)


def test_a_gguf_file_not_converted_yet_says_how_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEDGEROW_CACHE", str(tmp_path / "cache"))
    gguf = tmp_path / "model.gguf"
    gguf.write_bytes(b"GGUF")
    with pytest.raises(ModelRefusedError, match=r"python -m engine\.prepare .*model\.gguf"):
        resolve_model(str(gguf))
    saved(converted_dir(gguf))
    assert resolve_model(str(gguf)).parent == tmp_path / "cache"


def test_conversions_of_other_files_are_kept_apart(tmp_path: Path) -> None:
    one, other = tmp_path / "one.gguf", tmp_path / "other.gguf"
    one.write_bytes(b"GGUF")
    other.write_bytes(b"GGUF")
    before = converted_dir(one)
    assert before != converted_dir(other)
    one.write_bytes(b"GGUF and more")
    assert converted_dir(one) != before


@pytest.mark.parametrize("content", [b"", b"GGUF", b"no gguf at all" * 100])
def test_a_damaged_gguf_file_is_refused_and_leaves_nothing(content: bytes, tmp_path: Path) -> None:
    gguf = tmp_path / "model.gguf"
    gguf.write_bytes(content)
    with pytest.raises(ModelRefusedError, match="cannot be converted") as caught:
        convert_gguf(gguf, tmp_path / "out" / "model")
    assert "\n" not in str(caught.value)
    assert list((tmp_path / "out").iterdir()) == []


def test_a_full_disk_is_told_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gguf = tmp_path / "model.gguf"
    gguf.write_bytes(b"0" * (1 << 20))

    class Full:
        free = 1 << 20

    monkeypatch.setattr("engine.gguf.shutil.disk_usage", lambda path: Full)
    with pytest.raises(ModelRefusedError, match=r"9 MiB of disk needed .* 1 MiB free"):
        convert_gguf(gguf, tmp_path / "out" / "model")
    assert list((tmp_path / "out").iterdir()) == []
