"""The engine: many sequences, one target, one round at a time, no I/O.

A round is plan -> draft -> forward -> commit. What a sequence says depends on its request alone:
not on the batch, the drafters, preemption or the prefix cache.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

from engine.answer_text import AnswerText, Detokenizer
from engine.asking import draws_of, extension_of, load_of
from engine.block_pool import BlockPool
from engine.config import TargetConfig
from engine.counters import EngineCounters
from engine.drafters.drafter import Drafter
from engine.drafting import Drafting
from engine.errors import CapacityError, InvalidRequestError
from engine.request import Emission, GenerationRequest, TokenLogprob
from engine.runner import Logits, ModelRunner
from engine.sampling import log_probs_of
from engine.scheduler import Scheduler, Step
from engine.sequence import Sequence as LiveSequence
from engine.usage import EngineUsage
from engine.verification import verify
from policies.cost_model import CostModel
from policies.selector import Load, Selector
from policies.step_curve import StepTime


class EngineText(Protocol):
    """What the engine needs of a tokenizer; see engine.text."""

    eos_token_ids: tuple[int, ...]

    def detokenizer(self) -> Detokenizer: ...


class Engine:
    """Decodes live requests. Not thread-safe: one thread calls everything.

    `costs` has what steps and drafts were measured to take, for selectors that price them.
    """

    def __init__(
        self,
        runner: ModelRunner,
        text: EngineText,
        drafters: Sequence[Drafter],
        config: TargetConfig,
        max_sequence_length: int,
    ) -> None:
        self.model_name = config.model
        self.vocab_size = runner.vocab_size
        self.max_sequence_length = max_sequence_length
        self._runner = runner
        self._text = text
        self._pool = BlockPool(-(-config.num_kv_tokens // config.block_size), config.block_size)
        self._scheduler = Scheduler(
            self._pool, min(config.max_num_sequences, config.max_batch_tokens),
            config.max_batch_tokens,
        )  # fmt: skip
        self._max_batch_tokens = config.max_batch_tokens
        self._max_queue_length = config.max_queue_length
        self.costs = CostModel()
        self._drafting = Drafting(drafters, runner.vocab_size, self.costs)
        self._live: dict[str, LiveSequence] = {}
        self._usage = EngineUsage()
        self._num_prompt_tokens = self._num_cached_tokens = self._num_finished = 0

    @property
    def has_work(self) -> bool:
        return bool(self._live)

    def use_selectors(self, default: Selector | None, named: Mapping[str, Selector]) -> None:
        """Who chooses from the next round on: `default`, or the one that a request names.

        Without a default everything is decoded plainly.
        """
        self._drafting.use_selectors(default, named)

    def use_drafters(self, drafters: Sequence[Drafter]) -> None:
        """These from the next round on; one that stays is the same object, and goes on as it is.

        Selectors may choose drafters that are gone, which drafts nothing.
        """
        self._drafting.use_drafters(drafters)

    def disable(self, drafters: Collection[str]) -> None:
        """Draft with these no more, and with all others again, from the next round on."""
        self._drafting.disable(drafters)

    def submit(self, request: GenerationRequest) -> None:
        """Queues a request; raises InvalidRequestError or CapacityError, having changed nothing."""
        self._check(request)
        self.check_room(request.tenant)
        end_ids = () if request.ignore_eos else self._text.eos_token_ids
        sequence = LiveSequence(
            request,
            AnswerText(self._text.detokenizer(), request.stop),
            (*end_ids, *request.stop_token_ids),
            self._max_length(request),
            self._runner.hidden_states,
        )
        if sequence.finish_reason is not None:
            raise InvalidRequestError("emitted_ids", request.emitted_ids, "an unfinished answer")
        self._live[sequence.id] = sequence
        self._scheduler.add(sequence)

    def check_room(self, tenant: str, num_coming: int = 0) -> None:
        """Raises CapacityError if the queue has no place for one more of this tenant.

        Any thread may ask. `num_coming` of the tenant's have passed, and are not submitted yet.
        """
        queue = self._scheduler.waiting
        if not queue.has_room(tenant, self._max_queue_length, num_coming):
            raise CapacityError("places in the queue", 1, 0)

    def cancel(self, sequence_id: str) -> None:
        """Ends a sequence now and frees its blocks; unknown ids are ignored."""
        sequence = self._live.get(sequence_id)
        if sequence is not None:
            self._drafting.conclude([], [sequence])
            self._leave(sequence)

    def step(self) -> list[Emission]:
        """One round; emissions of the sequences that got tokens, possibly none."""
        steps = self._scheduler.plan()
        if not steps:
            return []
        self._draft(steps, load_of(steps))
        steps = [step for step in steps if not step.waits]
        if not steps:
            return []
        load = load_of(steps)
        started = time.perf_counter()
        logits = self._runner.extend([extension_of(step) for step in steps])
        emissions = self._commit(steps, logits)
        self._observe_step(steps, load, time.perf_counter() - started)
        sequences = [step.sequence for step in steps]
        ended = [sequence for sequence in sequences if sequence.finish_reason is not None]
        going_on = [sequence for sequence in sequences if sequence.finish_reason is None]
        self._drafting.conclude(going_on, ended)
        for sequence in ended:
            self._leave(sequence)
        return emissions

    def counters(self) -> EngineCounters:
        return EngineCounters(
            num_running=len(self._scheduler.running),
            num_waiting=len(self._scheduler.waiting),
            num_kv_blocks=self._pool.num_blocks,
            num_kv_blocks_used=self._pool.num_used,
            num_prompt_tokens=self._num_prompt_tokens,
            num_cached_tokens=self._num_cached_tokens,
            num_emitted_tokens=self._usage.total.num_emitted_tokens,
            num_rounds=self._usage.total.num_rounds,
            num_preemptions=self._scheduler.num_preemptions,
            num_requests_finished=self._num_finished,
            per_drafter=self._usage.total.snapshot().per_drafter,
            num_drafter_failures=self._drafting.num_failures,
            drafter_states=self._drafting.states,
            per_tenant=self._usage.per_tenant,
            num_accepted_at=self._usage.num_accepted_at,
            hindsight=self._drafting.hindsight,
        )

    def check_integrity(self) -> None:
        """Asserts that the blocks in use are exactly those of the running sequences."""
        self._pool.check_integrity()
        used = {block for s in self._scheduler.running for block in s.block_table}
        assert len(used) == self._pool.num_used, "a block is used by no running sequence"

    def _check(self, request: GenerationRequest) -> None:
        if request.sequence_id in self._live:
            raise InvalidRequestError("sequence_id", request.sequence_id, "an id not in use")
        for name, ids in (
            ("prompt", request.prompt_ids),
            ("logit_bias", request.sampling.logit_bias),
            ("stop_token_ids", request.stop_token_ids),
            ("emitted_ids", request.emitted_ids),
        ):
            for token in ids:
                if not 0 <= token < self.vocab_size:
                    raise InvalidRequestError(name, token, f"token ids in [0, {self.vocab_size})")
        length = len(request.prompt_ids) + len(request.emitted_ids) + 1
        if length > self.max_sequence_length:
            raise CapacityError("tokens of prompt and answer", length, self.max_sequence_length)
        if length > self._max_length(request):
            allowed = (
                f"at most {self._max_length(request) - 1}, for the tenant's quota of the cache"
            )
            raise InvalidRequestError("prompt", f"{length - 1} tokens", allowed)

    def _max_length(self, request: GenerationRequest) -> int:
        """Most tokens of prompt and answer: with a quota, what fits into its whole blocks."""
        quota = request.kv_quota_tokens
        if quota is None:
            return self.max_sequence_length
        block_size = self._pool.block_size
        return min(self.max_sequence_length, quota // block_size * block_size)

    def _draft(self, steps: Sequence[Step], load: Load) -> None:
        budget = self._max_batch_tokens
        for step, tokens in self._drafting.draft(steps, load):
            room = self._scheduler.room_for_draft(step.sequence, min(len(tokens), budget))
            step.draft = tokens[:room]
            if room < len(tokens):
                step.num_given_up = 0
            budget -= room

    def _observe_step(self, steps: Sequence[Step], load: Load, seconds: float) -> None:
        num_draft_tokens = sum(len(step.draft) for step in steps)
        num_tokens = load.num_tokens + num_draft_tokens
        step_time = StepTime(num_tokens, load.num_sequences, load.num_kv_entries, seconds)
        self.costs.observe_step(step_time, num_draft_tokens)

    def _commit(self, steps: Sequence[Step], logits: Logits) -> list[Emission]:
        logits.draw_ahead(draws_of(steps))
        emissions, first_row = [], 0
        for step in steps:
            if not step.emits:
                step.sequence.num_computed += step.num_new
                self._scheduler.publish(step.sequence)
                continue
            emissions.append(self._emit(step, logits, first_row))
            first_row += len(step.draft) + 1
        return emissions

    def _emit(self, step: Step, logits: Logits, first_row: int) -> Emission:
        sequence = step.sequence
        base = len(sequence.tokens)
        sampler = sequence.sampler
        if sequence.usage.num_rounds == 0:
            self._num_prompt_tokens += sequence.num_prompt_tokens
            self._num_cached_tokens += sequence.num_cached_tokens or 0

        def target_token(i: int) -> int:
            token = logits.draw(first_row + i, sampler, base + i)
            sampler.push(token)
            return token

        emitted = verify(step.draft, target_token)
        for token in emitted:
            sequence.append(token)
            if sequence.finish_reason:
                break
        num_kept = len(sequence.tokens) - base
        sequence.num_computed = len(sequence.tokens) - 1
        num_accepted = min(len(emitted) - 1, num_kept)
        if step.decodes:
            is_cut = num_kept < len(emitted) and num_accepted < len(step.draft)
            self._drafting.note(step, num_accepted, is_cut)
        round_ = (step.drafter, len(step.draft), num_accepted, num_kept)
        sequence.usage.add(*round_)
        self._usage.add(sequence.request.tenant, *round_)
        self._scheduler.charge(sequence, num_kept)
        self._scheduler.trim(sequence)
        self._scheduler.publish(sequence)
        log_probs = self._log_probs(sequence, logits, first_row, base)
        return self._emission(sequence, base, log_probs)

    def _log_probs(
        self, sequence: LiveSequence, logits: Logits, first_row: int, base: int
    ) -> tuple[TokenLogprob, ...]:
        num_top = sequence.request.sampling.logprobs
        if num_top is None:
            return ()
        return tuple(
            log_probs_of(logits.row(first_row + i), token, num_top)
            for i, token in enumerate(sequence.tokens[base:])
        )

    def _emission(
        self, sequence: LiveSequence, base: int, log_probs: tuple[TokenLogprob, ...]
    ) -> Emission:
        ended = sequence.finish_reason is not None
        text = sequence.text.finish() if ended else sequence.text.take()
        return Emission(
            sequence.id,
            tuple(sequence.tokens[base:]),
            text,
            log_probs,
            sequence.finish_reason,
            sequence.num_prompt_tokens,
            sequence.num_cached_tokens or 0,
            sequence.usage.snapshot(),
        )

    def _leave(self, sequence: LiveSequence) -> None:
        del self._live[sequence.id]
        self._scheduler.remove(sequence)
        self._num_finished += 1
