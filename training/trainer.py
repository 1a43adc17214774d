"""The loop of every training: steps, their schedule, a log, and going on after a stop.

What a step trains on is a function of its number, so that a training that was stopped ends with the
weights of one that was not, to the last bit.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

CHECKPOINT, LOG = "checkpoint.pt", "log.jsonl"
Losses = Mapping[str, Tensor]


class TrainingError(Exception):
    """A training folder that belongs to another training; names it."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """AdamW with a warm-up and a cosine to a twentieth of `learning_rate`."""

    num_steps: int
    learning_rate: float
    num_warmup_steps: int = 30
    weight_decay: float = 0.01
    max_norm: float = 1.0
    save_every: int = 200

    def rate_at(self, step: int) -> float:
        warmth = min(1.0, (step + 1) / max(1, self.num_warmup_steps))
        cosine = 0.5 * (1 + math.cos(math.pi * step / max(1, self.num_steps)))
        return self.learning_rate * warmth * (0.05 + 0.95 * cosine)


class Trainer:
    """Trains `module` in `folder`, where it goes on if it was there before.

    `facts` describe the training: a folder with others is refused.
    """

    def __init__(
        self, module: nn.Module, folder: Path, schedule: Schedule, facts: Mapping[str, object]
    ) -> None:
        self._module = module
        self._folder = folder
        self._schedule = schedule
        self._facts = json.dumps({**facts, **asdict(schedule)}, sort_keys=True, default=str)
        self._optimizer = torch.optim.AdamW(
            module.parameters(),
            schedule.learning_rate,
            betas=(0.9, 0.95),
            weight_decay=schedule.weight_decay,
        )
        self.step = 0
        folder.mkdir(parents=True, exist_ok=True)
        self._resume()

    def run(self, losses_of: Callable[[int], Losses], report: Callable[[], Losses]) -> None:
        """Descends on `losses_of(step)["loss"]`; `report` is logged whenever weights are saved."""
        schedule = self._schedule
        name = self._folder.name
        with tqdm(desc=f"{name}: steps", total=schedule.num_steps, initial=self.step) as progress:
            while self.step < schedule.num_steps:
                losses = losses_of(self.step)
                for group in self._optimizer.param_groups:
                    group["lr"] = schedule.rate_at(self.step)
                self._optimizer.zero_grad()
                losses["loss"].backward()
                nn.utils.clip_grad_norm_(self._module.parameters(), schedule.max_norm)
                self._optimizer.step()
                self.step += 1
                progress.update()
                if self.step % schedule.save_every == 0 or self.step == schedule.num_steps:
                    with torch.no_grad():
                        self._save(losses, report(), progress)

    def _save(self, losses: Losses, report: Losses, progress: tqdm[None]) -> None:
        figures = {key: round(float(value), 4) for key, value in {**losses, **report}.items()}
        progress.set_postfix({key: f"{value:.3f}" for key, value in figures.items()})
        staged = self._folder / f"{CHECKPOINT}.new"
        content = {
            "facts": self._facts,
            "step": self.step,
            "module": self._module.state_dict(),
            "optimizer": self._optimizer.state_dict(),
        }
        torch.save(content, staged)
        os.replace(staged, self._folder / CHECKPOINT)
        with (self._folder / LOG).open("a", encoding="utf-8") as log:
            log.write(json.dumps({"step": self.step, **figures}) + "\n")

    def _resume(self) -> None:
        path = self._folder / CHECKPOINT
        if not path.is_file():
            return
        content = torch.load(path, map_location="cpu", weights_only=True)
        if content["facts"] != self._facts:
            raise TrainingError(
                f"{self._folder} holds another training: {content['facts']}; now {self._facts}. "
                "Use another folder, or remove it"
            )
        self._module.load_state_dict(content["module"])
        self._optimizer.load_state_dict(content["optimizer"])
        self.step = int(content["step"])
