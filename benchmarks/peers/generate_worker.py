"""`python -m benchmarks.peers.generate_worker`: transformers' `generate`, float32, stock layers.

Plainly, several prompts as one padded batch; with its prompt lookup, one prompt at a time.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch
from transformers import AutoModelForCausalLM, GenerationConfig

from benchmarks.peers.answers import Answer
from benchmarks.peers.worker import work
from benchmarks.peers.workload import Cell, Job
from benchmarks.workbench import MODEL
from engine.model_files import resolve_model
from engine.text import Text

NUM_LOOKUP_TOKENS = 10
"""A draft's length in transformers' own example of prompt lookup."""


class Generate:
    def __init__(self) -> None:
        folder = resolve_model(MODEL)
        self._text = Text.load(folder)
        self._model: Any = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, use_safetensors=True
        ).eval()
        self._forwards_s: list[float] = []
        self._model.register_forward_hook(self._count)

    def _count(self, *_: object) -> None:
        self._forwards_s.append(time.perf_counter())

    def answer(self, cell: Cell, mode: str) -> list[Answer]:
        """A batch ends with its longest answer; a later batch waits for it.

        Prompt lookup takes no batch of more than one.
        """
        started, answers = time.perf_counter(), list[Answer]()
        width = cell.num_streams if mode == "plain" else 1
        for i in range(0, len(cell.jobs), width):
            answers += self._batch(cell.jobs[i : i + width], mode, started)
        return answers

    @torch.inference_mode()
    def _batch(self, jobs: Sequence[Job], mode: str, started: float) -> list[Answer]:
        longest = max(len(job.prompt_ids) for job in jobs)
        pad = self._text.eos_token_ids[0]
        rows = [[pad] * (longest - len(job.prompt_ids)) + list(job.prompt_ids) for job in jobs]
        mask = [[0] * (longest - len(j.prompt_ids)) + [1] * len(j.prompt_ids) for j in jobs]
        num_tokens = max(job.num_tokens for job in jobs)
        settings = GenerationConfig(
            do_sample=False, max_new_tokens=num_tokens, eos_token_id=None, pad_token_id=pad
        )
        if mode != "plain":
            settings.prompt_lookup_num_tokens = NUM_LOOKUP_TOKENS
        self._forwards_s.clear()
        begun = time.perf_counter()
        output = self._model.generate(
            torch.tensor(rows), attention_mask=torch.tensor(mask), generation_config=settings
        )
        ended = time.perf_counter()
        return [
            Answer(
                job.domain,
                started_s=begun - started,
                first_s=self._forwards_s[0] - begun,  # which is the prompt's
                total_s=ended - begun,
                num_tokens=job.num_tokens,
                num_rounds=job.num_tokens if mode == "plain" else len(self._forwards_s),
                text=self._text.decode(ids[longest : longest + job.num_tokens].tolist()),
            )
            for job, ids in zip(jobs, output, strict=True)
        ]


if __name__ == "__main__":
    work(Generate().answer)
