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

from engine.config import Dtype
from engine.drafters.folder import FolderKind
from engine.drafters.shape import DrafterShape
from engine.errors import EngineError
from engine.model_files import EMBEDDED_MODEL
from training import acceptance
from training.corpus import Corpus, CorpusError, Recipe
from training.distillation import Teacher
from training.domains import DomainError, load_domain
from training.drafter import head_shape, model_shape, train
from training.machine import Machine, add_machine
from training.plan import Objective, Plan
from training.sources import SEEDS, SELF, SourceError, licences_of
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
class Making:
    """One run of the recipe: how much of everything, where corpora and checkpoints are kept and
    drafters go, on what it computes, and the folder of further prompts, if any."""

    size: Size
    work: Path
    output: Path
    machine: Machine
    prompts: Path | None = None


def make_corpus(name: str, making: Making) -> Path:
    """The domain's texts."""
    domain, folder, size = load_domain(name), making.work / "corpus" / name, making.size
    file = None if making.prompts is None else making.prompts / f"{name}.jsonl"
    files = (str(file),) if file is not None and file.is_file() else ()
    writer = load_writer(EMBEDDED_MODEL, size.max_tokens, making.machine, _DTYPE)
    identity = writer.target.identity
    sources, temperatures = (SEEDS, SELF, *files), (0.0, 0.7, 1.0)
    licences = licences_of(sources, domain)
    recipe = Recipe(name, sources, temperatures, size.max_tokens, 0, identity, _DTYPE, licences)
    fill(Corpus.create(folder, recipe), writer, domain, size.num_texts, size.shard_size)
    return folder


def make_drafter(
    kind: Kind,
    corpora: Mapping[str, Path],
    making: Making,
    teacher: Teacher,
    start: Path | None = None,
) -> Path:
    """Of all domains' texts, or from such a `start` of one domain's."""
    size = making.size
    domain = "all" if start is None else "-".join(corpora)
    num_steps = size.num_shared_steps if start is None else size.num_steps
    rate = kind.learning_rate if start is None else kind.learning_rate / 2
    schedule = Schedule(num_steps, rate, save_every=min(200, num_steps))
    plan = Plan(kind.name, domain, kind.shape, size.num_ids, schedule, Objective(), start)
    name = f"{domain}-{kind.name}"
    output = making.work / "shared" if start is None else making.output
    folders = [*corpora.values()]
    return train(plan, folders, output / name, making.work / name, teacher).path


def run(making: Making, domains: Sequence[str]) -> None:
    """All steps for these domains; prints the folder of each drafter."""
    corpora = {name: make_corpus(name, making) for name in domains}
    target = acceptance.load_target(EMBEDDED_MODEL, making.machine)
    teacher = Teacher.load(EMBEDDED_MODEL, making.machine.device)
    for kind in kinds():
        names = [name for name in domains if name in kind.domains]
        if not names:
            continue
        shared = make_drafter(kind, corpora, making, teacher)
        for name in names:
            folder = make_drafter(kind, {name: corpora[name]}, making, teacher, shared)
            work = making.work / f"{folder.name}-acceptance"
            acceptance.run(folder, [corpora[name]], work, target, making.size.acceptance)
            print(folder)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m training.recipe",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("domains", nargs="*", help="of code, math, chat, edit; all by default")
    add_machine(parser)
    given = parser.parse_args(arguments)
    unknown = sorted(set(given.domains) - set(DOMAINS))
    if unknown:
        parser.error(f"{', '.join(unknown)}: expected some of {', '.join(DOMAINS)}")
    machine = Machine.of(given)
    is_quick = os.environ.get("QUICK", "") not in ("", "0")
    folder = os.environ.get("PROMPTS")
    prompts = Path(folder) if folder else None
    if prompts is not None and not prompts.is_dir():
        parser.error(f"PROMPTS={prompts}: no such folder")
    build = Path("build")
    quick = build / "quick"
    making = (
        Making(QUICK, quick / "training", quick / "models", machine, prompts)
        if is_quick
        else Making(FULL, build / "training", Path("models"), machine, prompts)
    )
    domains = given.domains or (DOMAINS[:1] if is_quick else DOMAINS)
    try:
        run(making, domains)
    except (EngineError, CorpusError, DomainError, SourceError, TrainingError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
