"""A training that was stopped ends with the weights of one that was not."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from training.trainer import LOG, Schedule, Trainer, TrainingError

SCHEDULE = Schedule(12, 0.05, num_warmup_steps=2, save_every=3)


def module() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(4, 1)


def run(folder: Path, stop_at: int | None = None, schedule: Schedule = SCHEDULE) -> nn.Linear:
    trained = module()

    def losses(step: int) -> Mapping[str, Tensor]:
        if step == stop_at:
            raise KeyboardInterrupt
        generator = torch.Generator().manual_seed(step)
        x = torch.randn(8, 4, generator=generator)
        return {"loss": (trained(x)[:, 0] - x.sum(1)).square().mean()}

    trainer = Trainer(trained, folder, schedule, {"name": "sum"})
    trainer.run(losses, lambda: {"size": trained.weight.norm()})
    return trained


@pytest.mark.parametrize("stop_at", [4, 6, 11])
def test_a_stopped_training_goes_on_to_the_same_weights(tmp_path: Path, stop_at: int) -> None:
    whole = run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "stopped", stop_at)
    assert torch.equal(run(tmp_path / "stopped").weight, whole.weight)
    assert torch.equal(run(tmp_path / "stopped").weight, whole.weight), "it is done already"


def test_the_log_tells_the_losses_as_they_fall(tmp_path: Path) -> None:
    run(tmp_path)
    lines = [json.loads(line) for line in (tmp_path / LOG).read_text().splitlines()]
    assert [line["step"] for line in lines] == [3, 6, 9, 12]
    assert lines[-1]["loss"] < lines[0]["loss"]
    assert lines[-1]["size"] > 0


def test_another_training_in_the_folder_is_refused(tmp_path: Path) -> None:
    run(tmp_path)
    with pytest.raises(TrainingError, match="holds another training"):
        run(tmp_path, schedule=Schedule(13, 0.05))
