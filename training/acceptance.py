"""`python -m training.acceptance DRAFTER --corpus FOLDER`: when a drafter had better stop.

Trains an acceptance head (SpecDec++, arXiv 2405.19715, section 3.1) on the exact bits: along texts
in which some tokens are the drafter's own, was what it draws there what the target draws? Also
counts how often its top probability came true, for drafters without the head.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from engine.config import TargetConfig
from engine.drafters.folder import WEIGHTS, DrafterFolder, write_acceptance
from engine.drafters.stopping import AcceptanceHead
from engine.errors import EngineError
from engine.loaded_target import LoadedTarget
from engine.request import SamplingParams
from engine.runner import Extension, Logits
from engine.sampling import TokenSampler
from training.corpus import Corpus, CorpusError, Text, read_texts
from training.machine import Machine, add_machine
from training.student import Batch, Student, load_student
from training.trainer import Schedule, Trainer, TrainingError

MIX_SHARE = 0.15  # of the tokens of a text are the drafter's
REJECTION_WEIGHT = 6.0
_BATCH_SIZE = 256
_BIN_EDGES = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98, 0.995)


@dataclass(frozen=True, slots=True)
class Sizes:
    """`num_steps` of a head's own states are examined, over `num_texts` texts of each corpus."""

    num_texts: int = 200
    num_steps: int = 5
    num_blocks: int = 1
    num_training_steps: int = 2000


@dataclass(frozen=True, slots=True)
class Tested:
    """Draft tokens: the states they were drawn from [num_tokens, hidden], what the drafter held of
    them, and whether the target draws the same; all [num_tokens]."""

    states: Tensor
    log_probs: Tensor
    top_probabilities: Tensor
    accepted: Tensor

    @staticmethod
    def join(parts: Sequence[Tested]) -> Tested:
        return Tested(
            torch.cat([part.states for part in parts]),
            torch.cat([part.log_probs for part in parts]),
            torch.cat([part.top_probabilities for part in parts]),
            torch.cat([part.accepted for part in parts]),
        )


class Examiner:
    """Lets a drafter draw along texts, and asks the target what it draws there."""

    def __init__(self, target: LoadedTarget, student: Student, num_steps: int) -> None:
        self._target = target
        self._student = student
        self._num_steps = num_steps

    @torch.no_grad()
    def test(self, text: Text, mix_share: float, random: np.random.Generator) -> Tested:
        """`mix_share` of the answer's tokens are first replaced by what the drafter draws."""
        first = text.num_prompt_tokens
        tokens = self._mixed(text, mix_share, random) if mix_share > 0 else text.tokens
        theirs, known = self._forward(tokens)
        wanted, text = _draw(theirs, text, first), replace(text, tokens=tokens, states=known)
        parts = []
        for step, states in enumerate(self._states(text)):
            rows = states[first - 1 + step :]
            logits = Logits(self._student.logits(rows), rows, self._student.vocabulary)
            drawn = _draw(logits, text, first + step)
            right = torch.tensor(
                [a == b for a, b in zip(drawn, wanted[step:], strict=True)], device=rows.device
            )
            found = Tested(rows, logits.log_probs(drawn), logits.top_probabilities(), right)
            parts.append(found)
        return Tested.join([part for part in parts if len(part.accepted)])

    def _states(self, text: Text) -> list[Tensor]:
        """By step, of every token but the last: [num_tokens - 1, hidden]."""
        batch = Batch.of([text], [0], len(text.tokens), str(self._target.config.device))
        return [states[0] for states in self._student.states(batch, self._num_steps)]

    def _mixed(self, text: Text, share: float, random: np.random.Generator) -> list[int]:
        first = text.num_prompt_tokens
        rows = self._states(text)[0][first - 1 :]
        drawn = _draw(
            Logits(self._student.logits(rows), rows, self._student.vocabulary), text, first
        )
        answer = [
            theirs if mixes else ours
            for theirs, ours, mixes in zip(
                drawn, text.tokens[first:], random.random(len(drawn)) < share, strict=True
            )
        ]
        return [*text.tokens[:first], *answer]

    def _forward(self, tokens: list[int]) -> tuple[Logits, Tensor]:
        """The target on a text: the logits before every token but the first, and its states."""
        runner = self._target.runner
        blocks = range(-(-len(tokens) // self._target.config.block_size))
        known = len(tokens) - 1
        logits = runner.extend([Extension(tokens[:-1], 0, blocks, known)])
        return logits, runner.keep_hidden_states().read(blocks, 0, known)


def _draw(logits: Logits, text: Text, first: int) -> list[int]:
    """What is drawn at positions `first` to the text's end, which the last rows of `logits` are."""
    sampling = SamplingParams(temperature=text.temperature, seed=text.seed)
    sampler = TokenSampler(sampling, text.tokens[: text.num_prompt_tokens])
    num_rows = logits.num_rows
    offset = num_rows - (len(text.tokens) - first)
    return [logits.draw(offset + i, sampler, first + i) for i in range(len(text.tokens) - first)]


def examine(
    examiner: Examiner, texts: Sequence[Text], mix_share: float, seed: int, title: str
) -> Tested:
    def parts() -> Iterator[Tested]:
        for i, text in enumerate(tqdm(texts, desc=title, unit="text")):
            if text.num_answer_tokens > 1:
                yield examiner.test(text, mix_share, np.random.default_rng((seed, i)))

    return Tested.join(list(parts()))


def calibration_of(tested: Tested) -> tuple[list[int], list[int]]:
    """Draft tokens tested, and accepted, by bin of top probability."""
    bins = np.searchsorted(_BIN_EDGES, tested.top_probabilities.cpu().numpy(), side="right")
    size = len(_BIN_EDGES) + 1
    accepted = tested.accepted.cpu().numpy()
    tested_counts = np.bincount(bins, minlength=size).tolist()
    return tested_counts, np.bincount(bins[accepted], minlength=size).tolist()


def losses_of(head: AcceptanceHead, tested: Tested) -> dict[str, Tensor]:
    """Cross entropy of the bits, rejections weighing more; and how many are told rightly."""
    raw = head(tested.states, tested.log_probs)
    label = tested.accepted.to(raw.dtype)
    weight = torch.where(tested.accepted, 1.0, REJECTION_WEIGHT)
    loss = functional.binary_cross_entropy_with_logits(raw, label, weight)
    return {"loss": loss, "right": ((raw > 0) == tested.accepted).float().mean()}


def train(
    folder: DrafterFolder,
    tested: Tested,
    unseen: Tested,
    work: Path,
    num_blocks: int,
    num_steps: int,
) -> DrafterFolder:
    """Adds the head and the calibration to a drafter's folder."""
    torch.manual_seed(0)
    head = AcceptanceHead(folder.card.shape.hidden_size, num_blocks).to(tested.states.device)
    with torch.no_grad():
        for weight in head.blocks.parameters():
            weight.zero_()
    schedule = Schedule(num_steps, 1e-3)
    weights = hashlib.sha256((folder.path / WEIGHTS).read_bytes()).hexdigest()
    facts = {"drafter": weights, "num_blocks": num_blocks, "num": len(tested.accepted)}
    trainer = Trainer(head, work, schedule, facts)

    def losses(step: int) -> dict[str, Tensor]:
        random = np.random.default_rng(step)
        rows = torch.from_numpy(random.integers(len(tested.accepted), size=_BATCH_SIZE))
        part = Tested(
            tested.states[rows],
            tested.log_probs[rows],
            tested.top_probabilities[rows],
            tested.accepted[rows],
        )
        return losses_of(head, part)

    trainer.run(
        losses, lambda: {f"held_out_{key}": v for key, v in losses_of(head, unseen).items()}
    )
    return write_acceptance(folder, head.state_dict(), num_blocks, calibration_of(tested))


def run(
    path: Path, corpora: Sequence[Path], work: Path, target: LoadedTarget, sizes: Sizes
) -> DrafterFolder:
    """The whole step, for a target that was loaded for heads."""
    folder = DrafterFolder.read(path)
    folder.refuse_other_target(target.identity, folder.card.kind)
    for corpus in corpora:
        Corpus.open(corpus).refuse_other_target(target.identity)
    assert target.shared is not None, "the target was loaded for heads"
    examiner = Examiner(target, load_student(folder, target.shared), sizes.num_steps)
    title = f"{path.name}: examined"
    texts = read_texts(corpora, False, sizes.num_texts)
    tested = examine(examiner, texts, MIX_SHARE, 0, title)
    unseen = examine(examiner, read_texts(corpora, True, 32), 0.0, 0, f"{title}, held out")
    return train(folder, tested, unseen, work, sizes.num_blocks, sizes.num_training_steps)


def load_target(model: str, machine: Machine) -> LoadedTarget:
    """Room for one text."""
    config = TargetConfig(
        model, device=machine.device, num_threads=machine.num_threads, num_kv_tokens=4096
    )
    return LoadedTarget.load(config, with_heads=True)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m training.acceptance",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    usual = Sizes()
    made.add_argument("drafter", type=Path, help="its folder, which gets the head")
    made.add_argument("--corpus", type=Path, action="append", required=True)
    made.add_argument("--work", type=Path, help="checkpoints and log; beside build/ by default")
    made.add_argument("--target", default="smollm2-135m-instruct")
    made.add_argument("--num-texts", type=int, default=usual.num_texts)
    made.add_argument("--num-blocks", type=int, default=usual.num_blocks)
    made.add_argument("--unroll", type=int, default=usual.num_steps)
    made.add_argument("--num-steps", type=int, default=usual.num_training_steps)
    add_machine(made)
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    given = parser().parse_args(arguments)
    machine = Machine.of(given)
    work = given.work or Path("build/training") / f"{given.drafter.name}-acceptance"
    sizes = Sizes(given.num_texts, given.unroll, given.num_blocks, given.num_steps)
    try:
        target = load_target(given.target, machine)
        folder = run(given.drafter, given.corpus, work, target, sizes)
    except (EngineError, CorpusError, TrainingError) as error:
        print(error, file=sys.stderr)
        return 1
    print(folder.path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
