"""`python -m training.synthesise DOMAIN OUTPUT`: texts of the target, with its hidden states.

Prompts come from the domain's templates, from files or own traffic, or with no data at all from the
target itself (`--source`, several take turns); the target answers, greedy and sampled in turns.
Run it again to go on where it stopped, or with a larger `--num-texts` for more.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from torch import Tensor
from tqdm import tqdm

from engine.config import Dtype, TargetConfig
from engine.drafters.drafter import Draft, DraftRequest, Outcome, ScoreRequest
from engine.engine import Engine
from engine.errors import EngineError
from engine.loaded_target import LoadedTarget
from engine.model_files import EMBEDDED_MODEL
from engine.request import GenerationRequest, SamplingParams
from training.corpus import Corpus, CorpusError, Recipe, Text
from training.domains import Domain, DomainError, load_domain
from training.machine import Machine, add_machine
from training.sources import SEEDS, Messages, SourceError, Sources, licences_of

NUM_STREAMS = 48
SHARD_SIZE = 72
_MAX_PROMPT_TOKENS = 1024  # longer conversations lose their beginning
_MAX_INVENTED_TOKENS = 64
_USUAL_TOKENS = 384  # of prompt and answer, that there is room for
_MARK = "\N{SYMBOL FOR UNIT SEPARATOR}"  # no text of a template


class StateRecorder:
    """A drafter that drafts nothing, and keeps the hidden states of what has ended."""

    name = "recorder"
    is_free = True
    max_draft_length = 1

    def __init__(self) -> None:
        self.states: dict[str, Tensor] = {}

    def draft(self, requests: Sequence[DraftRequest]) -> list[Draft]:
        return [Draft(len(request.tokens)) for request in requests]

    def score(self, requests: Sequence[ScoreRequest]) -> list[list[Outcome]]:
        for request in requests:
            if request.finished and request.past is not None:
                num_known = min(request.past.num_known, len(request.tokens) - 1)
                self.states[request.sequence_id] = request.past.read(0, num_known)
        return [[] for _ in requests]

    def forget(self, sequence_ids: Iterable[str]) -> None:
        pass


@dataclass(frozen=True, slots=True)
class Job:
    """A prompt to continue."""

    prompt: list[int]
    temperature: float
    seed: int
    max_tokens: int


class Writer:
    """The target, writing many texts at once."""

    def __init__(self, target: LoadedTarget) -> None:
        self.target = target
        self._recorder = StateRecorder()
        self._engine = Engine(
            target.runner, target.text, [self._recorder], target.config, target.max_sequence_length
        )

    def write(
        self, jobs: Sequence[Job], progress: tqdm[None] | None = None
    ) -> list[tuple[list[int], Tensor]]:
        """Prompt and answer of each job, and the states of all its tokens but the last."""
        answers: dict[str, list[int]] = {str(i): [] for i in range(len(jobs))}
        for i, job in enumerate(jobs):
            sampling = SamplingParams(temperature=job.temperature, seed=job.seed)
            prompt = tuple(job.prompt)
            self._engine.submit(GenerationRequest(str(i), prompt, job.max_tokens, sampling))
        while self._engine.has_work:
            for emission in self._engine.step():
                answers[emission.sequence_id] += emission.token_ids
                if progress is not None:
                    progress.update(len(emission.token_ids))
        states, self._recorder.states = self._recorder.states, {}
        return [([*job.prompt, *answers[str(i)]], states[str(i)]) for i, job in enumerate(jobs)]

    def prompt_of(self, messages: Messages) -> list[int]:
        """The ids of a conversation that the target answers next."""
        return self._encode(self.target.text.render_chat(list(messages)))[-_MAX_PROMPT_TOKENS:]

    def opening_of(self, messages: Messages) -> list[int]:
        """The ids of a conversation up to where the user's next turn begins."""
        turn = {"role": "user", "content": _MARK}
        rendered = self.target.text.render_chat([*messages, turn])
        return self._encode(rendered.partition(_MARK)[0])

    def _encode(self, text: str) -> list[int]:
        return self.target.text.encode(text, add_special_tokens=False)


def load_writer(model: str, max_tokens: int, machine: Machine, dtype: Dtype = "float32") -> Writer:
    """A target with room for `NUM_STREAMS` texts, that keeps its states."""
    longest = _MAX_PROMPT_TOKENS + max(max_tokens, _MAX_INVENTED_TOKENS)
    config = TargetConfig(
        model,
        device=machine.device,
        dtype=dtype,
        num_threads=machine.num_threads,
        num_kv_tokens=max(longest + 16, NUM_STREAMS * _USUAL_TOKENS),
        max_num_sequences=NUM_STREAMS,
    )
    return Writer(LoadedTarget.load(config, with_heads=True))


def fill(corpus: Corpus, writer: Writer, domain: Domain, num_texts: int, shard_size: int) -> None:
    """Writes the shards that are missing, until there are `num_texts` texts or a few more."""
    recipe = corpus.recipe
    sources = Sources(recipe.sources, domain, recipe.seed)
    shards = [i for i in range(-(-num_texts // shard_size)) if not corpus.has_shard(i)]
    with tqdm(desc=f"{domain.name}: tokens", unit="") as progress:
        for number, shard in enumerate(shards, start=1):
            indices = range(shard * shard_size, (shard + 1) * shard_size)
            jobs = _jobs(writer, sources, recipe, indices)
            written = writer.write(jobs, progress)
            texts = [
                Text(recipe.domain, tokens, len(job.prompt), job.temperature, job.seed, states)
                for job, (tokens, states) in zip(jobs, written, strict=True)
            ]
            corpus.write_shard(shard, [text for text in texts if text.num_answer_tokens > 1])
            progress.set_postfix_str(f"shard {number} of {len(shards)}")


def _jobs(writer: Writer, sources: Sources, recipe: Recipe, indices: Sequence[int]) -> list[Job]:
    asked = [sources.conversation(index) for index in indices]
    invented = [i for i, each in enumerate(asked) if each.is_invented]
    openings = [
        Job(writer.opening_of(asked[i].messages), 1.0, _seed(recipe, indices[i]),
            _MAX_INVENTED_TOKENS)
        for i in invented
    ]  # fmt: skip
    messages = [each.messages for each in asked]
    for i, job, (tokens, _) in zip(invented, openings, writer.write(openings), strict=True):
        text = writer.target.text.decode(tokens[len(job.prompt) :]).strip()
        messages[i] = ({"role": "user", "content": text or "Hello"},)
    return [
        Job(
            writer.prompt_of(each),
            recipe.temperatures[index % len(recipe.temperatures)],
            _seed(recipe, index),
            recipe.max_tokens,
        )
        for each, index in zip(messages, indices, strict=True)
    ]


def _seed(recipe: Recipe, index: int) -> int:
    return recipe.seed * 1_000_003 + index


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m training.synthesise",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("domain", help="code, math, chat, edit, or a domain's .json file")
    made.add_argument("output", type=Path, help="the corpus, a folder")
    made.add_argument("--target", default=EMBEDDED_MODEL, help="the model that drafts are for")
    made.add_argument("--source", action="append", metavar="seeds|self|FILE.jsonl")
    made.add_argument("--num-texts", type=int, default=2000)
    made.add_argument("--max-tokens", type=int, default=256, help="of an answer")
    made.add_argument("--temperatures", type=float, nargs="+", default=[0.0, 0.7, 1.0])
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--dtype", choices=get_args(Dtype), default="float32", help="to write in")
    add_machine(made)
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    given = parser().parse_args(arguments)
    machine = Machine.of(given)
    try:
        domain = load_domain(given.domain)
        sources = tuple(given.source or [SEEDS])
        writer = load_writer(given.target, given.max_tokens, machine, given.dtype)
        recipe = Recipe(
            domain.name,
            sources,
            tuple(given.temperatures),
            given.max_tokens,
            given.seed,
            writer.target.identity,
            given.dtype,
            licences_of(sources, domain),
        )
        fill(Corpus.create(given.output, recipe), writer, domain, given.num_texts, SHARD_SIZE)
    except (EngineError, CorpusError, DomainError, SourceError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
