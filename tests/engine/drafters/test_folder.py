"""A drafter's folder comes back as it was written, and is refused for any other target by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_target import write_tiny_target

from cluster.drafter_folder import folder_problems
from cluster.drafter_folder import vocab_hash as checked_hash
from engine.build import build_drafter
from engine.config import DrafterConfig, TargetConfig
from engine.drafters.folder import (
    DrafterCard,
    DrafterFolder,
    TargetIdentity,
    vocab_hash,
    write_acceptance,
    write_drafter,
)
from engine.drafters.head_model import HeadModel
from engine.drafters.shape import DrafterShape
from engine.drafters.stopping import AcceptanceHead
from engine.drafters.trained import small_model, small_model_weights
from engine.errors import ModelRefusedError
from engine.loaded_target import LoadedTarget
from engine.reduced_vocabulary import ReducedVocabulary

HEAD = DrafterShape(32, 1, 4, 2, 16, 48)
MODEL = DrafterShape(24, 1, 2, 1, 16, 48)
IDS = [1, 5, 70, 200]
COUNTS = ([4] * 15, [2] * 15)


@pytest.fixture(scope="module")
def target_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_target(tmp_path_factory.mktemp("target"))


@pytest.fixture(scope="module")
def target(target_folder: Path) -> LoadedTarget:
    config = TargetConfig(str(target_folder), num_kv_tokens=256, numerics="invariant")
    return LoadedTarget.load(config, with_heads=True)


def written(folder: Path, kind: str, target_folder: Path, num_blocks: int | None = None) -> Path:
    torch.manual_seed(3)
    identity = TargetIdentity.of(str(target_folder), target_folder)
    if kind == "head":
        card = DrafterCard("head", "code", identity, HEAD)
        made = write_drafter(folder, card, HeadModel(HEAD).state_dict(), IDS)
    else:
        card = DrafterCard("model", "code", identity, MODEL)
        made = write_drafter(folder, card, small_model_weights(small_model(MODEL, 4)), IDS)
    if num_blocks is not None:
        head = AcceptanceHead(card.shape.hidden_size, num_blocks)
        write_acceptance(made, head.state_dict(), num_blocks, COUNTS)
    return folder


def problems(path: Path, kind: str, target_model: Path, stops: bool = False) -> list[str]:
    return list(folder_problems(str(path), kind, str(target_model), stops))


@pytest.mark.parametrize("num_blocks", [None, 2])
@pytest.mark.parametrize("kind", ["head", "model"])
def test_what_is_written_is_read_and_drafts(
    kind: Any, num_blocks: int | None, tmp_path: Path, target: LoadedTarget, target_folder: Path
) -> None:
    path = written(tmp_path / "drafter", kind, target_folder, num_blocks)
    folder = DrafterFolder.read(path)
    assert (folder.card.kind, folder.card.num_acceptance_blocks) == (kind, num_blocks)
    assert folder.card.target == target.identity
    assert folder.weights()[1] == IDS
    threshold = None if num_blocks is None else 0.5
    config = DrafterConfig("d", kind, 4, path=str(path), stop_threshold=threshold)
    assert build_drafter(config, target).max_draft_length == 4
    assert problems(path, kind, target_folder, stops=threshold is not None) == []
    assert not list(path.glob("*.new"))


def test_a_calibration_alone_can_stop_drafts_too(
    tmp_path: Path, target: LoadedTarget, target_folder: Path
) -> None:
    path = written(tmp_path / "drafter", "head", target_folder)
    config = DrafterConfig("d", "head", 4, path=str(path), stop_threshold=0.5)
    with pytest.raises(ModelRefusedError, match="no acceptance head and no calibration"):
        build_drafter(config, target)
    assert "no calibration" in problems(path, "head", target_folder, stops=True)[0]
    counts = {"num_tested": COUNTS[0], "num_accepted": COUNTS[1]}
    (path / "calibration.json").write_text(json.dumps(counts))
    build_drafter(config, target)
    assert problems(path, "head", target_folder, stops=True) == []


CHANGES: dict[str, tuple[Callable[[Path], Path], str]] = {
    "another training": (lambda p: write_tiny_target(p, seed=1), "weights_hash"),
    "another vocabulary": (lambda p: write_tiny_target(p, rename="x-x"), "vocab_hash"),
}


@pytest.mark.parametrize(("change", "named"), CHANGES.values(), ids=CHANGES.keys())
@pytest.mark.parametrize("kind", ["head", "model"])
def test_another_target_is_refused_by_name(
    change: Callable[[Path], Path], named: str, kind: str, tmp_path: Path, target_folder: Path
) -> None:
    path = written(tmp_path / "drafter", kind, target_folder)
    other = change(tmp_path / "other")
    identity = TargetIdentity.of(str(other), other)
    folder = DrafterFolder.read(path)
    if kind == "model" and named == "weights_hash":
        folder.refuse_other_target(identity, kind)  # only ids must mean the same
        assert problems(path, kind, other) == []
        return
    with pytest.raises(ModelRefusedError, match=f"not for {other}: {named}"):
        folder.refuse_other_target(identity, kind)
    if named == "vocab_hash":  # weights are not looked at by a check that reads JSON alone
        assert f"not for '{other}': vocab_hash" in problems(path, kind, other)[0]


def test_a_head_for_a_target_of_another_size_is_refused(
    tmp_path: Path, target_folder: Path
) -> None:
    folder = DrafterFolder.read(written(tmp_path / "drafter", "head", target_folder))
    identity = replace(folder.card.target, hidden_size=64)
    with pytest.raises(ModelRefusedError, match="hidden_size 32 is not 64"):
        folder.refuse_other_target(identity, "head")
    (tmp_path / "config.json").write_text(
        json.dumps({"hidden_size": 64, "vocab_size": 258, "model_type": "llama"})
    )
    assert "hidden_size 32 is not 64" in problems(folder.path, "head", tmp_path)[0]


def test_a_target_that_is_only_a_name_is_compared_by_it(
    tmp_path: Path, target_folder: Path
) -> None:
    path = written(tmp_path / "drafter", "head", target_folder)
    assert "not for 'smollm2" in problems(path, "head", Path("smollm2-135m-instruct"))[0]


def edit(path: Path, **changes: object) -> None:
    content = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**content, **changes}))


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no config": (lambda p: (p / "config.json").unlink(), "config.json"),
    "no JSON": (lambda p: (p / "config.json").write_text("{"), "config.json"),
    "a model's config": (lambda p: edit(p, format="pt"), "is no drafter"),
    "a later version": (lambda p: edit(p, version=2), "version 2"),
    "an unknown kind": (lambda p: edit(p, kind="oracle"), "kind 'oracle'"),
}


@pytest.mark.parametrize(("damage", "named"), DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_folder_is_refused_by_name(
    damage: Callable[[Path], object], named: str, tmp_path: Path, target_folder: Path
) -> None:
    path = written(tmp_path / "drafter", "head", target_folder)
    damage(path)
    with pytest.raises(ModelRefusedError, match=named) as caught:
        DrafterFolder.read(path)
    assert caught.value.model == str(path)
    assert named in problems(path, "head", target_folder)[0]


def test_a_folder_of_another_kind_is_refused(
    tmp_path: Path, target: LoadedTarget, target_folder: Path
) -> None:
    path = written(tmp_path / "drafter", "model", target_folder)
    with pytest.raises(ModelRefusedError, match="is of kind 'model', not 'head'"):
        build_drafter(DrafterConfig("d", "head", 4, path=str(path)), target)
    assert problems(path, "head", target_folder) == [
        f"{str(path)!r} is of kind 'model', not 'head'"
    ]


BAD_WEIGHTS: dict[str, tuple[str, bytes | None, str]] = {
    "none": ("weights.safetensors", None, "cannot be read"),
    "cut short": ("weights.safetensors", b"\x00" * 40, "cannot be read"),
}


@pytest.mark.parametrize(("name", "content", "named"), BAD_WEIGHTS.values(), ids=BAD_WEIGHTS)
def test_damaged_weights_are_refused(
    name: str,
    content: bytes | None,
    named: str,
    tmp_path: Path,
    target: LoadedTarget,
    target_folder: Path,
) -> None:
    path = written(tmp_path / "drafter", "head", target_folder)
    (path / name).unlink() if content is None else (path / name).write_bytes(content)
    with pytest.raises(ModelRefusedError, match=named):
        build_drafter(DrafterConfig("d", "head", 4, path=str(path)), target)


def test_weights_of_another_shape_are_refused(
    tmp_path: Path, target: LoadedTarget, target_folder: Path
) -> None:
    path = written(tmp_path / "drafter", "head", target_folder)
    folder = DrafterFolder.read(path)
    write_drafter(path, folder.card, {"fuse.weight": torch.zeros(32, 64)}, IDS)
    with pytest.raises(ModelRefusedError, match="do not fit its shape"):
        build_drafter(DrafterConfig("d", "head", 4, path=str(path)), target)
    wide = HeadModel(replace(HEAD, intermediate_size=64)).state_dict()
    write_drafter(path, folder.card, wide, IDS)
    with pytest.raises(ModelRefusedError, match="do not fit: size mismatch"):
        build_drafter(DrafterConfig("d", "head", 4, path=str(path)), target)
    write_drafter(path, folder.card, HeadModel(HEAD).state_dict(), [5, 999])
    with pytest.raises(ModelRefusedError, match=r"ids must be in \[0, 258\)"):
        build_drafter(DrafterConfig("d", "head", 4, path=str(path)), target)


def test_the_engine_and_the_check_hash_a_vocabulary_alike(target_folder: Path) -> None:
    content = json.loads((target_folder / "tokenizer.json").read_text())
    assert checked_hash(content) == vocab_hash(target_folder)
    pairs = sorted(content["model"]["vocab"].items(), key=lambda pair: pair[1])
    content["model"]["vocab"] = [[token, 0.0] for token, _ in pairs]
    assert checked_hash(content) == vocab_hash(target_folder)


def test_ids_of_a_reduced_vocabulary_are_ascending_and_known() -> None:
    vocabulary = ReducedVocabulary(IDS, 201)
    assert vocabulary.places([5, 6, 200]).tolist() == [1, 4, 3]
    row = vocabulary.expand(torch.ones(1, 4).numpy())[0]
    assert [i for i, value in enumerate(row) if value == 1.0] == IDS
    for ids in ([], [3, 3], [5, 1], [201], [-1]):
        with pytest.raises(ValueError, match="ids"):
            ReducedVocabulary(ids, 201)
