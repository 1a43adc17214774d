"""A drafter is a folder: what it is and for which target, its weights, what tells it to stop.

`config.json` comes last when one is written, so that a folder with it is whole. A folder for
another target is refused by name. `cluster/drafter_folder.py` reads the same config without torch.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal, get_args

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from engine.drafters.shape import DrafterShape
from engine.errors import ModelRefusedError
from engine.model_files import read_config

FORMAT, VERSION = "hedgerow-drafter", 1
CONFIG = "config.json"
WEIGHTS = "weights.safetensors"
ACCEPTANCE = "acceptance.safetensors"
CALIBRATION = "calibration.json"
OUTPUT_IDS = "output_ids"

FolderKind = Literal["head", "model"]
_SAMPLED_VALUES = 64  # of every weight, that tell one target from another
_PROJECT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class TargetIdentity:
    """What a drafter must know again. `name` is for people; the rest is of the target's files.

    `weights_hash` is of the first values of every weight: another training changes it.
    """

    name: str
    model_type: str
    hidden_size: int
    vocab_size: int
    vocab_hash: str
    weights_hash: str

    @staticmethod
    def of(name: str, folder: Path) -> TargetIdentity:
        """Of a model's folder; raises ModelRefusedError for what cannot be read."""
        config = read_config(folder)
        sizes = {**config, **config.get("text_config", {})}
        return TargetIdentity(
            name=name,
            model_type=str(config.get("model_type", "")),
            hidden_size=int(sizes["hidden_size"]),
            vocab_size=int(sizes["vocab_size"]),
            vocab_hash=vocab_hash(folder),
            weights_hash=_weights_hash(folder),
        )


def vocab_hash(folder: Path) -> str:
    """SHA-256 of all (id, token) pairs of tokenizer.json, ascending by id."""
    path = folder / "tokenizer.json"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        tokens = content["model"]["vocab"]
        if isinstance(tokens, list):  # of (token, score), the place being the id
            tokens = {token: i for i, (token, _) in enumerate(tokens)}
        pairs = {(int(i), str(token)) for token, i in tokens.items()}
        pairs |= {(int(t["id"]), str(t["content"])) for t in content.get("added_tokens", ())}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelRefusedError(str(path), f"has no vocabulary to read: {error}") from error
    return hashlib.sha256(json.dumps(sorted(pairs)).encode()).hexdigest()


def _weights_hash(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as tensors:
            for name in sorted(tensors.keys()):
                part = tensors.get_slice(name)
                first = part[:1] if part.get_shape() else tensors.get_tensor(name)
                values = first.flatten()[:_SAMPLED_VALUES]
                digest.update(name.encode() + values.float().numpy().tobytes())
    return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class DrafterCard:
    """The config of a drafter. `num_acceptance_blocks` are its acceptance head's, if it has one."""

    kind: FolderKind
    domain: str
    target: TargetIdentity
    shape: DrafterShape
    num_acceptance_blocks: int | None = None


@dataclass(frozen=True, slots=True)
class DrafterFolder:
    """A drafter's folder that has been read; weights are read when they are asked for."""

    path: Path
    card: DrafterCard

    @staticmethod
    def read(path: str | Path) -> DrafterFolder:
        """Raises ModelRefusedError for a folder that is no drafter, or of another version."""
        folder = find_folder(path)
        try:
            content = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ModelRefusedError(str(path), f"{CONFIG} cannot be read: {error}") from error
        if not isinstance(content, dict) or content.pop("format", None) != FORMAT:
            raise ModelRefusedError(str(path), f"is no drafter: its format is not {FORMAT!r}")
        version = content.pop("version", None)
        if version != VERSION:
            reason = f"has format version {version!r}; this program reads {VERSION}"
            raise ModelRefusedError(str(path), reason)
        if content.get("kind") not in get_args(FolderKind):
            reason = f"kind {content.get('kind')!r} is none of {get_args(FolderKind)}"
            raise ModelRefusedError(str(path), reason)
        try:
            target = TargetIdentity(**content.pop("target"))
            shape = DrafterShape(**content.pop("shape"))
            return DrafterFolder(folder, DrafterCard(target=target, shape=shape, **content))
        except (KeyError, TypeError) as error:
            raise ModelRefusedError(str(path), f"{CONFIG} is damaged: {error}") from error

    def refuse_other_target(self, target: TargetIdentity, kind: str) -> None:
        """Ids must mean the same; a head also needs the very states that it was trained on."""
        card = self.card
        if card.kind != kind:
            raise ModelRefusedError(str(self.path), f"is of kind {card.kind!r}, not {kind!r}")
        facts = ["vocab_size", "vocab_hash"]
        if card.kind == "head":
            facts += ["model_type", "hidden_size", "weights_hash"]
        for fact in facts:
            theirs, ours = getattr(card.target, fact), getattr(target, fact)
            if theirs != ours:
                reason = (
                    f"drafts for {card.target.name}, not for {target.name}: "
                    f"{fact} {theirs} is not {ours}"
                )
                raise ModelRefusedError(str(self.path), reason)

    def weights(self) -> tuple[dict[str, Tensor], list[int]]:
        """All weights by name in float32, and the ids that are drafted."""
        weights = self._load(WEIGHTS)
        if OUTPUT_IDS not in weights:
            raise ModelRefusedError(str(self.path), f"{WEIGHTS} has no {OUTPUT_IDS}")
        ids: list[int] = weights.pop(OUTPUT_IDS).tolist()
        return {name: weight.float() for name, weight in weights.items()}, ids

    def acceptance_weights(self) -> dict[str, Tensor]:
        """Of the acceptance head, in float32."""
        return {name: weight.float() for name, weight in self._load(ACCEPTANCE).items()}

    def calibration(self) -> tuple[list[int], list[int]] | None:
        """How many tokens were tested and accepted by bin of top probability; None if unknown."""
        path = self.path / CALIBRATION
        if not path.is_file():
            return None
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            return list(content["num_tested"]), list(content["num_accepted"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ModelRefusedError(str(path), f"is damaged: {error}") from error

    def _load(self, name: str) -> dict[str, Tensor]:
        try:
            return load_file(self.path / name)
        except Exception as error:  # the library raises bare exceptions
            raise ModelRefusedError(str(self.path / name), f"cannot be read: {error}") from error


def project_drafters() -> list[Path]:
    """The folders of the drafters in `models/`."""
    return sorted(path.parent for path in (_PROJECT / "models").glob(f"*/{CONFIG}"))


def find_folder(path: str | Path) -> Path:
    """`path` as it stands, or else below the project's own folder."""
    given = Path(path)
    return given if given.is_dir() or given.is_absolute() else _PROJECT / given


def write_drafter(
    folder: Path, card: DrafterCard, weights: Mapping[str, Tensor], output_ids: list[int]
) -> DrafterFolder:
    """Writes config and weights, these in 16 bits; each file appears whole."""
    folder.mkdir(parents=True, exist_ok=True)
    rounded = {name: weight.detach().half().contiguous() for name, weight in weights.items()}
    rounded[OUTPUT_IDS] = torch.tensor(output_ids, dtype=torch.int32)
    _save(folder / WEIGHTS, rounded)
    _write_card(folder, card)
    return DrafterFolder(folder, card)


def write_acceptance(
    drafter: DrafterFolder,
    weights: Mapping[str, Tensor],
    num_blocks: int,
    calibration: tuple[list[int], list[int]],
) -> DrafterFolder:
    """Adds an acceptance head, and how often top probabilities came true."""
    _save(drafter.path / ACCEPTANCE, {name: w.detach().half() for name, w in weights.items()})
    counts = {"num_tested": calibration[0], "num_accepted": calibration[1]}
    _replace(drafter.path / CALIBRATION, json.dumps(counts))
    card = replace(drafter.card, num_acceptance_blocks=num_blocks)
    _write_card(drafter.path, card)
    return DrafterFolder(drafter.path, card)


def _write_card(folder: Path, card: DrafterCard) -> None:
    content = {"format": FORMAT, "version": VERSION, **asdict(card)}
    _replace(folder / CONFIG, json.dumps(content, indent=1) + "\n")


def _save(path: Path, tensors: Mapping[str, Tensor]) -> None:
    staged = path.with_suffix(".new")
    save_file(dict(tensors), staged)
    os.replace(staged, path)


def _replace(path: Path, text: str) -> None:
    staged = path.with_suffix(".new")
    staged.write_text(text, encoding="utf-8")
    os.replace(staged, path)
