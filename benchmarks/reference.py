"""The peer: transformers' own `generate`, with its stock attention and linear layers."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch
from transformers import AutoModelForCausalLM, GenerationConfig

from benchmarks.spread import Spread, paired_ratios, print_table
from benchmarks.workbench import PLAIN, Ids, Workbench
from engine.model_files import resolve_model


class Reference:
    """The same weights in float32 on the same threads, greedy, one prompt at a time."""

    def __init__(self, model: str, eos_token_ids: Sequence[int]) -> None:
        self._model = AutoModelForCausalLM.from_pretrained(
            resolve_model(model), dtype=torch.float32, use_safetensors=True
        ).eval()
        self._eos = list(eos_token_ids)

    @torch.inference_mode()
    def run(self, prompt: Ids, max_tokens: int) -> tuple[Ids, float]:
        """The answer's ids, and the seconds they took, prefill included."""
        settings = GenerationConfig(
            do_sample=False,
            max_new_tokens=max_tokens,
            eos_token_id=self._eos,
            pad_token_id=self._eos[0],
        )
        started = time.perf_counter()
        ids = torch.tensor([prompt])
        output = self._model.generate(
            ids, attention_mask=torch.ones_like(ids), generation_config=settings
        )
        answer = output[0, len(prompt) :].tolist()
        return tuple(answer), time.perf_counter() - started


def compare_with_generate(
    bench: Workbench, reference: Reference, prompts: Sequence[Ids], max_tokens: int, repeats: int
) -> dict[str, float]:
    """Plain decoding against `generate`, in turns; one stream, prefill on both sides."""
    ours: list[float] = []
    theirs: list[float] = []
    num_different = 0
    reference.run(prompts[0], 2)
    for repeat in range(repeats):
        num_tokens, seconds = [0, 0], [0.0, 0.0]
        for i, prompt in enumerate(prompts):
            for side in (0, 1) if (repeat + i) % 2 else (1, 0):
                if side == 0:
                    run = bench.run([prompt], PLAIN, max_tokens)
                    ids, elapsed = run.ids[0], run.total_s
                else:
                    expected, elapsed = reference.run(prompt, max_tokens)
                    ids = expected
                num_tokens[side] += len(ids)
                seconds[side] += elapsed
            num_different += run.ids[0] != expected
        ours.append(num_tokens[0] / seconds[0])
        theirs.append(num_tokens[1] / seconds[1])
    ratio = paired_ratios(ours, theirs)
    print_table(
        f"plain decoding against transformers generate: greedy, 1 stream, {len(prompts)} prompts x "
        f"{max_tokens} tokens, prefill included, {repeats} repeats in turns",
        ["", "tokens/s"],
        [["generate", Spread.of(theirs)], ["plain", Spread.of(ours)], ["ratio", ratio]],
    )
    print(f"  answers with other ids: {num_different} of {len(prompts) * repeats}")
    return {"plain_vs_generate": ratio.median, "generate_num_different": num_different}
