"""Decodes cases plainly and speculatively, in different batches, and compares them id for id."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tqdm import tqdm

from benchmarks.echo_drafter import EchoDrafter
from benchmarks.excuse import Situation, is_excused
from benchmarks.proof_cases import Case
from benchmarks.random_selector import RandomSelector
from benchmarks.workbench import Ids, drafter_configs, trained_configs
from engine.build import build_drafter, wants_heads
from engine.config import TargetConfig
from engine.drafters.drafter import Drafter
from engine.engine import Engine
from engine.loaded_target import LoadedTarget
from engine.request import GenerationRequest
from engine.runner import Extension

ALONE_EVERY = 100  # one plain case in so many is decoded with nothing else in the batch
SEED = 20


@dataclass(frozen=True, slots=True)
class Setting:
    """A share of the cases, and how the engine is set that speculates over them."""

    name: str
    share: float
    max_num_sequences: int
    max_batch_tokens: int
    num_kv_tokens: int


SETTINGS = (
    Setting("mixed batches", 0.6, 24, 512, 16384),
    Setting("small cache, preemption", 0.25, 16, 256, 768),
    Setting("small prefill chunks", 0.15, 32, 48, 16384),
)


@dataclass(frozen=True, slots=True)
class Difference:
    """The first id that differs between two answers to `case`; None is the answer's end."""

    case: Case
    position: int
    plain: int | None
    speculative: int | None
    shared: Ids


@dataclass(slots=True)
class Findings:
    """Counts over all cases; tokens behind a difference are not compared."""

    num_tokens: int = 0
    num_mismatches: int = 0
    num_excused: int = 0
    num_preemptions: int = 0
    num_cached_tokens: int = 0
    num_accepted_tokens: int = 0
    num_draft_tokens: int = 0


def first_difference(case: Case, plain: Ids, speculative: Ids) -> Difference | None:
    """None if the answers are equal."""
    if plain == speculative:
        return None
    longest = max(len(plain), len(speculative))
    at = next(i for i in range(longest) if plain[i : i + 1] != speculative[i : i + 1])
    return Difference(
        case,
        at,
        plain[at] if at < len(plain) else None,
        speculative[at] if at < len(speculative) else None,
        plain[:at],
    )


class Proof:
    """One target in one numeric form, and its drafters."""

    def __init__(self, target: TargetConfig, shallow: Path) -> None:
        self._target = target
        configs = [*drafter_configs(shallow), *trained_configs()]
        loaded = LoadedTarget.load(target, with_heads=wants_heads(configs))
        self._runner, self.text, self._longest = (
            loaded.runner, loaded.text, loaded.max_sequence_length,
        )  # fmt: skip
        self._drafters = [build_drafter(config, loaded) for config in configs]

    def encode(self, prompt: str) -> list[int]:
        chat = self.text.render_chat([{"role": "user", "content": prompt}])
        return self.text.encode(chat, add_special_tokens=False)

    def run(self, cases: Sequence[Case], progress: tqdm[None]) -> Findings:
        """Decodes everything twice; prints every difference that is not excused."""
        findings = Findings()
        plain = self._decode_plainly(cases, progress)
        speculative = self._decode_speculatively(cases, plain, findings, progress)
        for case in cases:
            found = first_difference(case, plain[case.id], speculative[case.id])
            findings.num_tokens += len(plain[case.id]) if found is None else found.position + 1
            if found is not None:
                self._judge(found, findings)
        return findings

    def _decode_plainly(self, cases: Sequence[Case], progress: tqdm[None]) -> dict[str, Ids]:
        """In order, some of them alone and with a tenant of their own."""
        engine = self._engine(replace(self._target, max_num_sequences=16), [])
        answers: dict[str, Ids] = {}
        for case in cases[::ALONE_EVERY]:
            answers |= _decode(engine, [case.request(True, f"alone {case.id}")], progress)
        together = [case.request(True) for case in cases if case.id not in answers]
        return answers | _decode(engine, together, progress)

    def _decode_speculatively(
        self,
        cases: Sequence[Case],
        plain: Mapping[str, Ids],
        findings: Findings,
        progress: tqdm[None],
    ) -> dict[str, Ids]:
        """Shuffled, and in every setting's batches."""
        echo = EchoDrafter(plain, 0.15, SEED, self._runner.vocab_size)
        shuffled = random.Random(SEED).sample(cases, len(cases))
        answers: dict[str, Ids] = {}
        for setting, part in _shares(shuffled):
            target = replace(
                self._target,
                max_num_sequences=setting.max_num_sequences,
                max_batch_tokens=setting.max_batch_tokens,
                num_kv_tokens=setting.num_kv_tokens,
            )
            engine = self._engine(target, [*self._drafters, echo])
            engine.use_selectors(RandomSelector(SEED), {})
            answers |= _decode(engine, [case.request(False) for case in part], progress)
            _count(engine, findings)
        return answers

    def _engine(self, target: TargetConfig, drafters: Sequence[Drafter]) -> Engine:
        """The runner's cache is lent to the newest engine: those before it must be finished."""
        longest = min(self._longest, target.num_kv_tokens)
        return Engine(self._runner, self.text, drafters, target, longest)

    def _judge(self, found: Difference, findings: Findings) -> None:
        is_fast = self._target.numerics == "fast"
        if is_fast and found.plain is not None and found.speculative is not None:
            case = found.case
            tokens = (*case.prompt_ids, *found.shared)
            blocks = list(range(-(-len(tokens) // self._target.block_size)))
            row = self._runner.extend([Extension(tokens, 0, blocks, 1)]).row(0)
            end_ids = self.text.eos_token_ids if case.ends_at_eos else ()
            situation = Situation(case.prompt_ids, found.shared, case.sampling, end_ids)
            if is_excused(row, situation, found.plain, found.speculative):
                findings.num_excused += 1
                return
        findings.num_mismatches += 1
        tqdm.write(
            f"mismatch ({self._target.numerics}): {found.case.id}, token {found.position}: plain "
            f"{found.plain}, speculative {found.speculative}; {found.case.sampling}"
        )


def _shares(cases: Sequence[Case]) -> Iterator[tuple[Setting, Sequence[Case]]]:
    """Cuts the cases into one part for each setting."""
    start, share = 0, 0.0
    for setting in SETTINGS:
        share += setting.share
        end = round(share * len(cases))
        yield setting, cases[start:end]
        start = end


def _decode(
    engine: Engine, requests: Sequence[GenerationRequest], progress: tqdm[None]
) -> dict[str, Ids]:
    """Runs the engine until all requests are answered."""
    for request in requests:
        engine.submit(request)
    answers: dict[str, Ids] = {request.sequence_id: () for request in requests}
    while engine.has_work:
        for emission in engine.step():
            answers[emission.sequence_id] += emission.token_ids
            progress.update(len(emission.token_ids))
    engine.check_integrity()
    return answers


def _count(engine: Engine, findings: Findings) -> None:
    counters = engine.counters()
    assert not any(counters.num_drafter_failures.values()), counters.num_drafter_failures
    findings.num_preemptions += counters.num_preemptions
    findings.num_cached_tokens += counters.num_cached_tokens
    for use in counters.per_drafter.values():
        findings.num_draft_tokens += use.num_draft_tokens
        findings.num_accepted_tokens += use.num_accepted_tokens
