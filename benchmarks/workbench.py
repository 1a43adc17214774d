"""One loaded target with its drafters, and runs of prompts through it that are timed.

A run's requests belong to a tenant of their own: no run finds the prefixes or outputs of another,
so that every side of a comparison prefills, and the suffix drafter starts from nothing.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.timed_runner import TimedRunner
from engine.build import build_drafter, wants_heads
from engine.config import DrafterConfig, TargetConfig
from engine.drafters.drafter import Drafter
from engine.drafters.folder import DrafterFolder, project_drafters
from engine.engine import Engine
from engine.loaded_target import LoadedTarget
from engine.request import GenerationRequest, SamplingParams, SpeculationOptions
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
TRAINED_DRAFT_LENGTH = 5


@dataclass(slots=True)
class Run:
    """What a run gave: ids by prompt, seconds, and how often the target was asked.

    `total_s` includes prefill; the other figures are of the rounds in which every stream decodes.
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


def trained_configs(stop_threshold: float | None = None) -> list[DrafterConfig]:
    """The drafters of `models/`, as many as there are."""
    return [
        DrafterConfig(
            path.name,
            DrafterFolder.read(path).card.kind,
            TRAINED_DRAFT_LENGTH,
            path=str(path),
            stop_threshold=stop_threshold,
        )
        for path in project_drafters()
    ]


def drafter_configs(shallow: Path | None) -> list[DrafterConfig]:
    """Both lookups, and the stand-in for a model drafter if there is one."""
    configs = [DrafterConfig("lookup", "prompt_lookup", 16), DrafterConfig("suffix", "suffix", 16)]
    if shallow is not None:
        configs.append(DrafterConfig("model", "model", MODEL_DRAFT_LENGTH, str(shallow)))
    return configs


@dataclass(slots=True)
class Workbench:
    """See the module. `drafters` take part, and those of them that a mode names draft."""

    config: TargetConfig
    drafters: Sequence[DrafterConfig] = ()
    target: LoadedTarget = field(init=False)
    runner: TimedRunner = field(init=False)
    text: Text = field(init=False)
    _engine: Engine = field(init=False)
    _named: dict[str, Selector] = field(init=False)
    _num_runs: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        target = LoadedTarget.load(self.config, with_heads=wants_heads(self.drafters))
        self.target = target
        self.text, longest = target.text, target.max_sequence_length
        self.runner = TimedRunner(target.runner)
        drafters: list[Drafter] = [build_drafter(config, target) for config in self.drafters]
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
        for step in measure_steps(target.runner, longest_step, self.config.block_size):
            self.costs.observe_step(step, num_draft_tokens=0)

    @property
    def longest(self) -> dict[str, int]:
        """The longest draft of each drafter."""
        return {drafter.name: drafter.max_draft_length for drafter in self.drafters}

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
        num_streams: int | None = None,
    ) -> Run:
        """Decodes the prompts, `num_streams` at a time: all at once unless given."""
        self._num_runs += 1
        requests = deque(
            GenerationRequest(
                sequence_id=str(i),
                prompt_ids=ids,
                max_tokens=max_tokens,
                sampling=sampling,
                tenant=f"run {self._num_runs}",
                ignore_eos=ignore_eos,
                speculation=SpeculationOptions(drafters=mode.drafters, selector=mode.name),
            )
            for i, ids in enumerate(prompts)
        )
        run = Run([()] * len(prompts))
        started = time.perf_counter()
        self._decode(requests, run, num_streams or len(prompts))
        run.total_s = time.perf_counter() - started
        return run

    def _decode(self, requests: deque[GenerationRequest], run: Run, num_streams: int) -> None:
        num_live, waiting_for_first = 0, set[int]()
        while requests or num_live:
            while requests and num_live < num_streams:
                waiting_for_first.add(int(requests[0].sequence_id))
                self._engine.submit(requests.popleft())
                num_live += 1
            counts = not waiting_for_first and num_live == num_streams
            before, forward_before = time.perf_counter(), self.runner.forward_s
            emissions = self._engine.step()
            if counts:
                run.decode_s += time.perf_counter() - before
                run.forward_s += self.runner.forward_s - forward_before
                run.num_rounds += 1
                run.num_decoded += sum(len(emission.token_ids) for emission in emissions)
            for emission in emissions:
                index = int(emission.sequence_id)
                waiting_for_first.discard(index)
                run.ids[index] += emission.token_ids
                if emission.finish_reason is not None:
                    num_live -= 1
                    run.num_draft_tokens += emission.use.num_draft_tokens
                    run.num_accepted_tokens += emission.use.num_accepted_tokens
