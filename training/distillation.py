"""What a drafter learns: the target's own distributions, along texts of the target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from engine.config import TargetConfig
from engine.drafters.folder import TargetIdentity
from engine.drafters.head_model import SharedWeights
from engine.model_files import resolve_model
from engine.models import load_model
from engine.text import Text as Tokenizer
from training.corpus import Text
from training.plan import Plan
from training.student import Batch, Student


@dataclass(frozen=True, slots=True)
class Teacher:
    """What training needs of the target: no layers, only what heads share, and who it is."""

    identity: TargetIdentity
    shared: SharedWeights
    end_ids: tuple[int, ...]
    device: str = "cpu"

    @staticmethod
    def load(model: str, device: str = "cpu") -> Teacher:
        folder = resolve_model(model)
        loaded = load_model(folder, device, TargetConfig(model).dtype)
        shared = SharedWeights.of(loaded)
        identity = TargetIdentity.of(model, folder)
        return Teacher(identity, shared, Tokenizer.load(folder).eos_token_ids, device)


class Distillation:
    """The losses of a student on texts; `teacher_rows` gives the target's logits of its ids."""

    def __init__(self, student: Student, teacher: Teacher, plan: Plan, texts: Sequence[Text]):
        self._student = student
        self._plan = plan
        self._device = teacher.device
        self._texts = texts
        for module in student.module.modules():
            if isinstance(module, nn.Linear):
                module.register_forward_hook(_in_32_bits)
        ids = torch.tensor(student.vocabulary.ids, device=teacher.device)
        self._rows = teacher.shared.output.index_select(0, ids).float()

    def at(self, step: int) -> dict[str, Tensor]:
        """Of the texts that a step trains on."""
        objective = self._plan.objective
        random = np.random.default_rng((self._plan.seed, step))
        chosen = [
            self._texts[i] for i in random.integers(len(self._texts), size=objective.batch_size)
        ]
        starts = []
        for text in chosen:
            last = max(0, len(text.tokens) - 1 - objective.window)
            first = min(last, max(0, text.num_prompt_tokens - objective.window // 2))
            starts.append(int(random.integers(first, last + 1)))
        return self.of(Batch.of(chosen, starts, objective.window, self._device))

    def of(self, batch: Batch) -> dict[str, Tensor]:
        """`loss`, and of each step `ce_1`.. and the share of rightly guessed ids, `right_1`..

        Products are of 16 bits where the processor has them, all else of 32.
        """
        with torch.no_grad():
            weighed = batch.weights > 0
            target = functional.linear(batch.states[weighed], self._rows)
        kind = torch.device(self._device).type
        with torch.autocast(kind, torch.bfloat16, enabled=_has_16_bits(kind)):
            return self._against(target.argmax(-1), target.softmax(-1), batch)

    def _against(self, best: Tensor, wanted: Tensor, batch: Batch) -> dict[str, Tensor]:
        """The target's likeliest ids and its distributions, of the rows that have weight."""
        objective, weighed = self._plan.objective, batch.weights > 0
        found: dict[str, Tensor] = {}
        total = torch.zeros((), device=self._device)
        for step, states in enumerate(self._student.states(batch, objective.num_steps)):
            rows = weighed & functional.pad(weighed, (step, 0))[:, : weighed.shape[1]]
            if not rows.any():  # answers of a few tokens have no place for later steps
                break
            kept = rows[weighed]
            logits = self._student.logits(states[rows]).float()
            entropy = functional.cross_entropy(logits, wanted[kept])
            found[f"ce_{step + 1}"] = entropy.detach()
            found[f"right_{step + 1}"] = (logits.argmax(-1) == best[kept]).float().mean()
            weight = objective.step_decay**step
            total = total + weight * entropy
            if self._plan.kind == "head":
                scale = batch.states[rows].square().mean().sqrt()
                distance = functional.smooth_l1_loss(
                    states[rows] / scale, batch.states[rows] / scale
                )
                total = total + weight * objective.state_weight * distance
        return {"loss": total, **found}


def _has_16_bits(kind: str) -> bool:
    """Whether the processor, or the GPU, multiplies bfloat16 itself."""
    if kind == "cpu":
        return torch.cpu._is_avx512_bf16_supported()
    return bool(torch.cuda.is_bf16_supported(including_emulation=False))


def _in_32_bits(module: nn.Module, inputs: object, output: Tensor) -> Tensor:
    return output.float()
