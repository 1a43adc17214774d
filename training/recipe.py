"""`python -m training.recipe`: the drafters of `models/`, all steps, going on where it stopped.

Texts of the target for each domain; one head and one small model that learn from all of them, so
that the little that each domain has goes further; from these a head for each domain, and for some
a model for a host, each with an acceptance head. PROMPTS=folder adds its `DOMAIN.jsonl` as prompts.
QUICK=1 makes small ones in `build/quick` within 60 s, to see that everything runs.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from engine.config import Dtype
from engine.drafters.folder import FolderKind
from engine.drafters.shape import DrafterShape
from engine.errors import EngineError
from engine.model_files import EMBEDDED_MODEL
from training import acceptance
from training.corpus import Corpus, CorpusError, Recipe
from training.domains import DomainError, load_domain
from training.drafter import Objective, Plan, head_shape, model_shape, train
from training.sources import SEEDS, SELF, SourceError
from training.synthesise import SHARD_SIZE, fill, load_writer
from training.trainer import Schedule, TrainingError

DOMAINS = ("code", "math", "chat", "edit")
_DTYPE: Dtype = "bfloat16"  # texts are written in half the time, and are as good to learn from


@dataclass(frozen=True, slots=True)
class Size:
    """Texts of a corpus and their length, steps on all domains and then on one, drafted ids."""

    num_texts: int
    max_tokens: int
    shard_size: int
    num_shared_steps: int
    num_steps: int
    num_ids: int
    acceptance: acceptance.Sizes


FULL = Size(6000, 192, SHARD_SIZE, 12000, 4000, 4096, acceptance.Sizes())
QUICK = Size(16, 24, 16, 3, 3, 512, acceptance.Sizes(4, 2, 1, 20))


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of drafter, its sizes, and the domains that get one."""

    name: FolderKind
    shape: DrafterShape
    learning_rate: float
    domains: tuple[str, ...]


def kinds() -> list[Kind]:
    """An edit is looked up, not guessed by a small model."""
    return [
        Kind("head", head_shape(EMBEDDED_MODEL, 1), 1e-3, DOMAINS),
        Kind("model", model_shape(256, 2), 2e-3, tuple(d for d in DOMAINS if d != "edit")),
    ]


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


def make_drafter(
    kind: Kind, corpora: Mapping[str, Path], size: Size, places: Places, start: Path | None = None
) -> Path:
    """Of all domains' texts, or from such a `start` of one domain's."""
    domain = "all" if start is None else "-".join(corpora)
    num_steps = size.num_shared_steps if start is None else size.num_steps
    rate = kind.learning_rate if start is None else kind.learning_rate / 2
    schedule = Schedule(num_steps, rate, save_every=min(200, num_steps))
    plan = Plan(kind.name, domain, kind.shape, size.num_ids, schedule, Objective(), start)
    name = f"{domain}-{kind.name}"
    output = places.work / "shared" if start is None else places.output
    folders = [*corpora.values()]
    return train(plan, folders, output / name, places.work / name, EMBEDDED_MODEL).path


def run(size: Size, places: Places, domains: Sequence[str], threads: int | None) -> None:
    given = os.environ.get("PROMPTS")
    prompts = Path(given) if given else None
    corpora = {name: make_corpus(name, size, places, prompts, threads) for name in domains}
    target = acceptance.load_target(EMBEDDED_MODEL, threads)
    for kind in kinds():
        names = [name for name in domains if name in kind.domains]
        if not names:
            continue
        shared = make_drafter(kind, corpora, size, places)
        for name in names:
            folder = make_drafter(kind, {name: corpora[name]}, size, places, shared)
            work = places.work / f"{folder.name}-acceptance"
            acceptance.run(folder, [corpora[name]], work, target, size.acceptance)
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
