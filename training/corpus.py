"""Texts of the target on disk, each with the target's hidden states in 16 bits.

A corpus is a folder of shards, each a safetensors file that is there whole or not at all, and
`corpus.json`, which says what it was made of: shards of two kinds are never mixed.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from engine.config import Dtype
from engine.drafters.folder import TargetIdentity
from engine.hidden_states import StoredPast

SETTINGS = "corpus.json"
_HELD_OUT = 16  # of so many prompts one is held out


class CorpusError(Exception):
    """A corpus folder that is not what is asked for; names the folder."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """What decides every text of a corpus, apart from how many there are."""

    domain: str
    sources: tuple[str, ...]
    temperatures: tuple[float, ...]
    max_tokens: int
    seed: int
    target: TargetIdentity
    dtype: Dtype
    licences: tuple[str, ...] = field(default=(), compare=False)
    """What the prompts are and under what licence, for model cards; decides nothing."""


@dataclass(frozen=True, slots=True)
class Text:
    """A prompt and the target's answer: `tokens`, the first `num_prompt_tokens` the prompt.

    `states` are the target's hidden states of all tokens but the last: [num_tokens - 1, hidden]; on
    the target's device, or the processor's where they were read from disk. It was drawn with
    `temperature` and `seed`.
    """

    domain: str
    tokens: list[int]
    num_prompt_tokens: int
    temperature: float
    seed: int
    states: Tensor

    @property
    def num_answer_tokens(self) -> int:
        return len(self.tokens) - self.num_prompt_tokens

    @property
    def past(self) -> StoredPast:
        """For drafters, which compute in 32 bits."""
        return StoredPast(self.states.float())

    @property
    def is_held_out(self) -> bool:
        """By the prompt alone: answers to one prompt are on one side."""
        prompt = repr(self.tokens[: self.num_prompt_tokens]).encode()
        return hashlib.sha256(prompt).digest()[0] % _HELD_OUT == 0


class Corpus:
    """One folder of shards."""

    def __init__(self, folder: Path, recipe: Recipe) -> None:
        self.folder = folder
        self.recipe = recipe

    @staticmethod
    def create(folder: Path, recipe: Recipe) -> Corpus:
        """Opens it to be filled, also one that is half full; raises CorpusError for another's."""
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / SETTINGS).is_file():
            found = Corpus.open(folder)
            if found.recipe != recipe:
                raise CorpusError(f"{folder} holds texts made otherwise: {found.recipe}")
        staged = folder / f"{SETTINGS}.new"
        staged.write_text(json.dumps(asdict(recipe), indent=1), encoding="utf-8")
        os.replace(staged, folder / SETTINGS)
        return Corpus(folder, recipe)

    @staticmethod
    def open(folder: Path) -> Corpus:
        try:
            content = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
            target = TargetIdentity(**content.pop("target"))
            for name in {"sources", "temperatures", "licences"} & content.keys():
                content[name] = tuple(content[name])
            return Corpus(folder, Recipe(target=target, **content))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise CorpusError(f"{folder} is no corpus: {error}") from error

    def refuse_other_target(self, target: TargetIdentity) -> None:
        """Raises CorpusError if the texts are not of this target."""
        own = self.recipe.target
        if own.weights_hash != target.weights_hash:
            raise CorpusError(f"{self.folder} has texts of {own.name}, not of {target.name}")

    def has_shard(self, index: int) -> bool:
        return self._path(index).is_file()

    def write_shard(self, index: int, texts: Sequence[Text]) -> None:
        shard = {
            "tokens": torch.tensor([t for text in texts for t in text.tokens], dtype=torch.int32),
            "lengths": torch.tensor([len(text.tokens) for text in texts], dtype=torch.int32),
            "num_prompt_tokens": torch.tensor(
                [text.num_prompt_tokens for text in texts], dtype=torch.int32
            ),
            "temperatures": torch.tensor([text.temperature for text in texts], dtype=torch.float64),
            "seeds": torch.tensor([text.seed for text in texts], dtype=torch.int64),
            "states": torch.cat([text.states.half() for text in texts]).cpu(),
        }
        staged = self._path(index).with_suffix(".new")
        save_file(shard, staged)
        os.replace(staged, self._path(index))

    def texts(self) -> Iterator[Text]:
        """All of them, in order."""
        for path in sorted(self.folder.glob("shard-*.safetensors")):
            yield from self._read(load_file(path))

    def _read(self, shard: Mapping[str, Tensor]) -> Iterator[Text]:
        lengths = shard["lengths"].tolist()
        tokens = shard["tokens"].split(lengths)
        states = shard["states"].split([length - 1 for length in lengths])
        for i, ids in enumerate(tokens):
            yield Text(
                self.recipe.domain,
                ids.tolist(),
                int(shard["num_prompt_tokens"][i]),
                float(shard["temperatures"][i]),
                int(shard["seeds"][i]),
                states[i],
            )

    def _path(self, index: int) -> Path:
        return self.folder / f"shard-{index:05d}.safetensors"


def read_texts(folders: Sequence[Path], held_out: bool, most: int | None = None) -> list[Text]:
    """The texts of some corpora on one side of the split, from each at most `most`."""
    found: list[Text] = []
    for folder in folders:
        side = [text for text in Corpus.open(folder).texts() if text.is_held_out == held_out]
        found += side[:most]
    if not found:
        names = ", ".join(map(str, folders))
        raise CorpusError(f"{names}: no {'held-out ' if held_out else ''}texts; synthesise more")
    return found
