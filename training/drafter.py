"""`python -m training.drafter KIND OUTPUT --corpus FOLDER`: a head or a small model for a domain.

Distilled on the target's own distributions over the most frequent ids, along texts of the target; a
head unrolled over several steps, each on its own states, as when it drafts. Run it again to go on.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch

from engine.drafters.folder import DrafterCard, DrafterFolder, write_drafter
from engine.drafters.shape import DrafterShape
from engine.errors import EngineError
from engine.model_files import read_config, resolve_model
from engine.reduced_vocabulary import ReducedVocabulary
from training.card import read_recipe, write_recipe
from training.corpus import Corpus, CorpusError, Text, read_texts
from training.distillation import Distillation, Teacher
from training.machine import Machine, add_machine
from training.plan import Objective, Plan
from training.student import Batch, HeadStudent, ModelStudent, Student
from training.trainer import Schedule, Trainer, TrainingError

_NUM_REPORT_TEXTS = 12
_STATE_SAMPLE = 64  # texts that a head's first scale is taken from


def frequent_ids(
    texts: Sequence[Text], num_ids: int, end_ids: Sequence[int], vocab_size: int
) -> ReducedVocabulary:
    """The ids that answers have most, ties to the lower; the ends of texts always."""
    counts = Counter(token for text in texts for token in text.tokens[text.num_prompt_tokens :])
    counts.update(token for text in texts for token in set(text.tokens))
    ranked = sorted(range(vocab_size), key=lambda token: (-counts[token], token))
    kept = [*end_ids, *(token for token in ranked if token not in end_ids)][:num_ids]
    return ReducedVocabulary(sorted(kept), vocab_size)


def make_student(plan: Plan, teacher: Teacher, texts: Sequence[Text]) -> Student:
    """With its first weights."""
    torch.manual_seed(plan.seed)
    vocabulary = frequent_ids(texts, plan.num_ids, teacher.end_ids, teacher.identity.vocab_size)
    if plan.kind == "head":
        head = HeadStudent(plan.shape, teacher.shared, vocabulary)
        head.start_from(torch.cat([text.states for text in texts[:_STATE_SAMPLE]]))
        return _gone_on(head, plan, teacher)
    model = ModelStudent(plan.shape, vocabulary)
    model.start_from(teacher.shared.output.cpu())
    model.module.to(teacher.device)  # type: ignore[arg-type]
    return _gone_on(model, plan, teacher)


def _gone_on(student: Student, plan: Plan, teacher: Teacher) -> Student:
    """With the weights of the drafter that the plan starts from, if any."""
    if plan.start is not None:
        folder = DrafterFolder.read(plan.start)
        folder.refuse_other_target(teacher.identity, plan.kind)
        if folder.card.shape != plan.shape:
            raise TrainingError(f"{plan.start} is of {folder.card.shape}, not of {plan.shape}")
        student.take_over(*folder.weights())
    return student


def train(
    plan: Plan, corpora: Sequence[Path], output: Path, work: Path, teacher: Teacher
) -> DrafterFolder:
    """Trains in `work` and writes the drafter's folder `output`."""
    for path in corpora:
        Corpus.open(path).refuse_other_target(teacher.identity)
    texts, held_out = read_texts(corpora, False), read_texts(corpora, True, _NUM_REPORT_TEXTS)
    student = make_student(plan, teacher, texts)
    facts = {"plan": plan, "num_texts": len(texts), "corpora": [str(path) for path in corpora]}
    trainer = Trainer(student.module, work, plan.schedule, facts)
    distillation = Distillation(student, teacher, plan, texts)
    window = plan.objective.window
    unseen = Batch.of(held_out, [0] * len(held_out), window, teacher.device)
    trainer.run(
        distillation.at,
        lambda: {f"held_out_{key}": value for key, value in distillation.of(unseen).items()},
    )
    ids = student.vocabulary.ids.tolist()
    card = DrafterCard(plan.kind, plan.domain, teacher.identity, plan.shape)
    folder = write_drafter(output, card, student.weights(), ids)
    write_recipe(output, _recipe_of(plan, corpora, texts))
    return folder


def _recipe_of(plan: Plan, corpora: Sequence[Path], texts: Sequence[Text]) -> dict[str, object]:
    """In words, for the model card."""
    made = [Corpus.open(path).recipe for path in corpora]
    num_tokens = sum(text.num_answer_tokens for text in texts)
    data, licences = f"{len(texts)} answers of the target, {num_tokens} tokens", set[str]()
    steps, objective, start = plan.schedule.num_steps, plan.objective, ""
    if plan.start is not None:
        before = read_recipe(plan.start)
        start = f", from the weights of {plan.start.name}"
        data += f"; before that ({plan.start.name}) {before.get('data', 'unknown texts')}"
        licences.update(before.get("licences", ()))
    licences.update(licence for recipe in made for licence in recipe.licences)
    return {
        "data": data,
        "licences": sorted(licences),
        "recipe": f"{steps} steps of {objective.batch_size} texts, cross entropy with the target's "
        f"distribution, {objective.num_steps if plan.kind == 'head' else 1} unrolled step(s), "
        f"AdamW at {plan.schedule.learning_rate:g}{start}",
        "num_ids": plan.num_ids,
    }


def head_shape(model: str, num_layers: int) -> DrafterShape:
    """Layers like the target's, with a narrower MLP."""
    config = read_config(resolve_model(model))
    sizes = {**config, **config.get("text_config", {})}
    size, heads = int(sizes["hidden_size"]), int(sizes["num_attention_heads"])
    dim = int(sizes.get("head_dim") or size // heads)
    kv_heads = int(sizes.get("num_key_value_heads") or heads)
    return DrafterShape(size, num_layers, heads, kv_heads, dim, 2 * size)


def model_shape(hidden_size: int, num_layers: int) -> DrafterShape:
    """A small model, with heads of 64."""
    heads = max(1, hidden_size // 64)
    return DrafterShape(hidden_size, num_layers, heads, max(1, heads // 2), 64, 3 * hidden_size)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m training.drafter",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("kind", choices=("head", "model"))
    made.add_argument("output", type=Path, help="the drafter, a folder")
    made.add_argument("--corpus", type=Path, action="append", required=True)
    made.add_argument("--start", type=Path, help="a drafter of the same shape to go on from")
    made.add_argument("--work", type=Path, help="checkpoints and log; beside build/ by default")
    made.add_argument("--target", default="smollm2-135m-instruct")
    made.add_argument("--num-steps", type=int, default=6000)
    made.add_argument(
        "--learning-rate", type=float, help="default: 1e-3 for heads, 2e-3 for models"
    )
    made.add_argument("--batch-size", type=int, default=4)
    made.add_argument("--num-ids", type=int, default=8192, help="that it can draft")
    made.add_argument("--num-layers", type=int, help="default: 1 for heads, 2 for models")
    made.add_argument("--hidden-size", type=int, default=256, help="of a model")
    made.add_argument("--unroll", type=int, default=3, help="steps of a head")
    add_machine(made)
    return made


def plan_of(given: argparse.Namespace) -> Plan:
    is_head = given.kind == "head"
    layers = given.num_layers or (1 if is_head else 2)
    shape = head_shape(given.target, layers) if is_head else model_shape(given.hidden_size, layers)
    rate = given.learning_rate or (1e-3 if is_head else 2e-3)
    return Plan(
        given.kind,
        Corpus.open(given.corpus[0]).recipe.domain,
        shape,
        given.num_ids,
        Schedule(given.num_steps, rate, save_every=min(200, max(1, given.num_steps // 8))),
        Objective(num_steps=given.unroll, batch_size=given.batch_size),
        given.start,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    given = parser().parse_args(arguments)
    machine = Machine.of(given)
    work = given.work or Path("build/training") / given.output.name
    try:
        plan, teacher = plan_of(given), Teacher.load(given.target, machine.device)
        folder = train(plan, given.corpus, given.output, work, teacher)
    except (EngineError, CorpusError, TrainingError) as error:
        print(error, file=sys.stderr)
        return 1
    print(folder.path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
