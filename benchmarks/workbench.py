"""One loaded target with its drafters, and runs of prompts through it that are timed.

A run's requests belong to a tenant of their own: no run finds the prefixes or outputs of another,
so that every side of a comparison prefills, and the suffix drafter starts from nothing.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.timed_runner import TimedRunner
from engine.build import build_drafter, longest_sequence
from engine.config import DrafterConfig, TargetConfig
from engine.drafters.drafter import Drafter
from engine.engine import Engine
from engine.model_files import resolve_model
from engine.models import build_runner, load_model
from engine.request import GenerationRequest, SamplingParams, SpeculationOptions
from engine.runner import ModelRunner
from engine.text import Text
from engine.warm_up import measure_steps
from policies.cost_model import CostModel
from policies.fixed import FixedSelector
from policies.rule import RuleSelector
from policies.selector import Selector

MODEL = "smollm2-135m-instruct"
GREEDY = SamplingParams(temperature=0.0)
Ids = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Mode:
    """How to decode: a named selector among these drafters. No drafters is plain decoding."""

    name: str
    drafters: tuple[str, ...] = ()


PLAIN = Mode("plain")
LOOKUP = Mode("lookup", ("lookup",))
SUFFIX = Mode("suffix", ("suffix",))
SHALLOW = Mode("model", ("model",))
RULE = Mode("rule", ("suffix", "lookup"))
RULE_DRAFT_LENGTH = 16
MODEL_DRAFT_LENGTH = 2


@dataclass(slots=True)
class Run:
    """What a run gave: ids by prompt, seconds, and how often the target was asked.

    `total_s` includes prefill; the `decode_*` figures start when the last of the prompts has its
    first token; `forward_s` and `num_rounds` are of the rounds from then on.
    """

    ids: list[Ids]
    total_s: float = 0.0
    decode_s: float = 0.0
    forward_s: float = 0.0
    num_rounds: int = 0
    num_decoded: int = 0
    num_draft_tokens: int = 0
    num_accepted_tokens: int = 0

    @property
    def num_tokens(self) -> int:
        return sum(len(ids) for ids in self.ids)

    @property
    def tokens_per_s(self) -> float:
        return self.num_tokens / self.total_s

    @property
    def overhead_s(self) -> float:
        """Seconds of the decoding rounds that were not the target's forward."""
        return self.decode_s - self.forward_s


def build_target(config: TargetConfig) -> tuple[ModelRunner, Text, int]:
    """Loads the target: its runner, its text, and the longest sequence it takes."""
    folder = resolve_model(config.model)
    model = load_model(folder, config.device, config.dtype)
    longest = longest_sequence(model, config)
    runner = build_runner(model, config.num_kv_tokens, config.block_size, config.numerics)
    return runner, Text.load(folder), longest


def drafter_configs(shallow: Path | None) -> list[DrafterConfig]:
    """The drafters of ray_config.yaml, and the stand-in for a model drafter if there is one."""
    configs = [DrafterConfig("lookup", "prompt_lookup", 16), DrafterConfig("suffix", "suffix", 16)]
    if shallow is not None:
        configs.append(DrafterConfig("model", "model", MODEL_DRAFT_LENGTH, str(shallow)))
    return configs


@dataclass(slots=True)
class Workbench:
    """See the module. `shallow` is the folder of the model drafter, if it takes part."""

    config: TargetConfig
    shallow: Path | None = None
    runner: TimedRunner = field(init=False)
    text: Text = field(init=False)
    _engine: Engine = field(init=False)
    _named: dict[str, Selector] = field(init=False)
    _num_runs: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        runner, self.text, longest = build_target(self.config)
        self.runner = TimedRunner(runner)
        drafters: list[Drafter] = [
            build_drafter(config, self.config, runner.vocab_size)
            for config in drafter_configs(self.shallow)
        ]
        self._engine = Engine(self.runner, self.text, drafters, self.config, longest)
        named: dict[str, Selector] = {
            "lookup": FixedSelector("lookup", 16),
            "suffix": FixedSelector("suffix", 16),
            "model": FixedSelector("model", MODEL_DRAFT_LENGTH),
            "rule": RuleSelector(RULE.drafters, RULE_DRAFT_LENGTH),
        }
        self._named = named
        self.use_selectors({})
        longest_step = min(self.config.max_batch_tokens, longest)
        for step in measure_steps(runner, longest_step, self.config.block_size):
            self.costs.observe_step(step, num_draft_tokens=0)

    @property
    def costs(self) -> CostModel:
        return self._engine.costs

    def use_selectors(self, further: Mapping[str, Selector]) -> None:
        """Modes may name these, beside the ones that are always there."""
        self._named |= further
        self._engine.use_selectors(FixedSelector(), self._named)

    def encode(self, prompt: str) -> Ids:
        """The ids of a chat with this one user message."""
        chat = self.text.render_chat([{"role": "user", "content": prompt}])
        return tuple(self.text.encode(chat, add_special_tokens=False))

    def run(
        self,
        prompts: Sequence[Ids],
        mode: Mode,
        max_tokens: int,
        sampling: SamplingParams = GREEDY,
        ignore_eos: bool = False,
    ) -> Run:
        """Decodes all prompts at once."""
        self._num_runs += 1
        for i, ids in enumerate(prompts):
            request = GenerationRequest(
                sequence_id=str(i),
                prompt_ids=ids,
                max_tokens=max_tokens,
                sampling=sampling,
                tenant=f"run {self._num_runs}",
                ignore_eos=ignore_eos,
                speculation=SpeculationOptions(drafters=mode.drafters, selector=mode.name),
            )
            self._engine.submit(request)
        return self._finish(Run([()] * len(prompts)))

    def _finish(self, run: Run) -> Run:
        started = decode_started = time.perf_counter()
        waiting_for_first = set(range(len(run.ids)))
        while self._engine.has_work:
            forward_before, is_decoding = self.runner.forward_s, not waiting_for_first
            for emission in self._engine.step():
                index = int(emission.sequence_id)
                waiting_for_first.discard(index)
                run.ids[index] += emission.token_ids
                run.num_decoded += len(emission.token_ids) if is_decoding else 0
                if emission.finish_reason is not None:
                    run.num_draft_tokens += emission.use.num_draft_tokens
                    run.num_accepted_tokens += emission.use.num_accepted_tokens
            if is_decoding:
                run.num_rounds += 1
                run.forward_s += self.runner.forward_s - forward_before
            elif not waiting_for_first:
                decode_started = time.perf_counter()
        ended = time.perf_counter()
        run.total_s, run.decode_s = ended - started, ended - decode_started
        return run
