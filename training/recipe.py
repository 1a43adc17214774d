"""`python -m training.recipe`: the drafters of `models/`, all steps, going on where it stopped.

For each domain: texts of the target, a head in the target's process and, for some, a small model
for a host, an acceptance head for each. PROMPTS=folder adds its `DOMAIN.jsonl` as prompts. QUICK=1
makes small ones in `build/quick` within 60 s, to see that everything runs.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from engine.config import Dtype
from engine.errors import EngineError
from engine.model_files import EMBEDDED_MODEL
from training import acceptance
from training.corpus import Corpus, CorpusError, Recipe
from training.domains import DomainError, load_domain
from training.drafter import Objective, Plan, head_shape, model_shape, train
from training.sources import SEEDS, SELF, SourceError
from training.synthesise import fill, load_writer
from training.trainer import Schedule, TrainingError

DOMAINS = ("code", "math", "chat", "edit")
_DTYPE: Dtype = "bfloat16"  # texts are written in half the time, and are as good to learn from
MODEL_DOMAINS = ("code", "math", "chat")  # an edit is looked up, not guessed


@dataclass(frozen=True, slots=True)
class Size:
    """Texts of a corpus and their length, steps of a training, and ids that can be drafted."""

    num_texts: int
    max_tokens: int
    shard_size: int
    num_steps: int
    num_ids: int
    acceptance: acceptance.Sizes


FULL = Size(6000, 256, 48, 12000, 8192, acceptance.Sizes())
QUICK = Size(16, 24, 16, 6, 512, acceptance.Sizes(4, 2, 1, 20))


@dataclass(frozen=True, slots=True)
class Places:
    """Where corpora and checkpoints are kept, and drafters go."""

    work: Path
    output: Path


def make_corpus(
    name: str, size: Size, places: Places, prompts: Path | None, threads: int | None
) -> Path:
    """The domain's texts."""
    domain, folder = load_domain(name), places.work / "corpus" / name
    file = None if prompts is None else prompts / f"{name}.jsonl"
    files = (str(file),) if file is not None and file.is_file() else ()
    writer = load_writer(EMBEDDED_MODEL, size.max_tokens, threads, _DTYPE)
    identity = writer.target.identity
    sources, temperatures = (SEEDS, SELF, *files), (0.0, 0.7, 1.0)
    recipe = Recipe(name, sources, temperatures, size.max_tokens, 0, identity, _DTYPE)
    fill(Corpus.create(folder, recipe), writer, domain, size.num_texts, size.shard_size)
    return folder


def make_drafters(name: str, corpus: Path, size: Size, places: Places) -> list[Path]:
    """The domain's head, and its small model if it gets one."""
    plans = [("head", head_shape(EMBEDDED_MODEL, 1), 1e-3)]
    if name in MODEL_DOMAINS:
        plans.append(("model", model_shape(256, 2), 2e-3))
    made = []
    for kind, shape, rate in plans:
        save_every = min(200, size.num_steps)
        schedule = Schedule(size.num_steps, rate, save_every=save_every)
        plan = Plan(kind, name, shape, size.num_ids, schedule, Objective())
        folder, work = places.output / f"{name}-{kind}", places.work / f"{name}-{kind}"
        made.append(train(plan, [corpus], folder, work, EMBEDDED_MODEL).path)
    return made


def run(size: Size, places: Places, domains: Sequence[str], threads: int | None) -> None:
    prompts = os.environ.get("PROMPTS")
    for name in domains:
        corpus = make_corpus(name, size, places, Path(prompts) if prompts else None, threads)
        drafters = make_drafters(name, corpus, size, places)
        target = acceptance.load_target(EMBEDDED_MODEL, threads)
        for folder in drafters:
            work = places.work / f"{folder.name}-acceptance"
            acceptance.run(folder, [corpus], work, target, size.acceptance)
            print(folder)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m training.recipe",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("domains", nargs="*", help="of code, math, chat, edit; all by default")
    parser.add_argument("--num-threads", type=int)
    given = parser.parse_args(arguments)
    if given.num_threads is not None:
        torch.set_num_threads(given.num_threads)
    is_quick = os.environ.get("QUICK", "") not in ("", "0")
    build = Path("build")
    places = (
        Places(build / "quick" / "training", build / "quick" / "models")
        if is_quick
        else Places(build / "training", Path("models"))
    )
    domains = given.domains or (DOMAINS[:1] if is_quick else DOMAINS)
    try:
        run(QUICK if is_quick else FULL, places, domains, given.num_threads)
    except (EngineError, CorpusError, DomainError, SourceError, TrainingError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
