"""The embedded model itself, with the drafters of `models/`: speculation changes nothing, and plain
greedy is `generate`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from hindsight import Watching
from switching import Switching
from tiny_models import ids_of, run_all
from transformers import AutoModelForCausalLM

from engine.build import build_engine
from engine.config import DrafterConfig, TargetConfig
from engine.drafters.folder import DrafterFolder, project_drafters
from engine.engine import Engine
from engine.model_files import EMBEDDED_MODEL, resolve_model
from engine.request import GenerationRequest, SamplingParams
from engine.text import Text
from policies.fixed import FixedSelector
from policies.rule import RuleSelector

TOPICS = (
    "a lighthouse keeper", "the moon's tides", "sourdough bread", "a broken bicycle",
    "prime numbers", "the city of Lisbon", "Zugvögel im Herbst", "東京の地下鉄", "café ☕ culture",
    "binary search",
)  # fmt: skip
FRAMES = (
    "Write two sentences about {}.",
    "Repeat this line three times, each on its own line: we know little of {}.",
    "Write a Python function about {} and call it: def about(name): return name",
)
PROMPTS = [frame.format(topic) for topic in TOPICS for frame in FRAMES]
SAMPLINGS = (
    SamplingParams(temperature=0.0, repetition_penalty=1.1),
    SamplingParams(temperature=0.7, top_p=0.9, seed=11),
    SamplingParams(temperature=1.0, top_k=40, min_p=0.02, frequency_penalty=0.3, seed=12),
    SamplingParams(temperature=0.0, logprobs=2),
    SamplingParams(temperature=1.0, seed=13),
)
LOOKUPS = (
    DrafterConfig("prompt_lookup", "prompt_lookup"),
    DrafterConfig("suffix", "suffix"),
)
FOLDERS = [DrafterFolder.read(path) for path in project_drafters()]
TRAINED = tuple(
    DrafterConfig(each.path.name, each.card.kind, 8, path=str(each.path), stop_threshold=0.95)
    for each in FOLDERS
)


@pytest.fixture(scope="module")
def text() -> Text:
    return Text.load(resolve_model(EMBEDDED_MODEL))


@pytest.fixture(scope="module")
def engine() -> Engine:
    config = TargetConfig(EMBEDDED_MODEL, numerics="invariant", num_kv_tokens=4096)
    return build_engine(config, [*LOOKUPS, *TRAINED])


def requests_of(text: Text) -> list[GenerationRequest]:
    return [
        GenerationRequest(
            f"{index}",
            tuple(text.encode(text.render_chat([{"role": "user", "content": prompt}]), False)),
            max_tokens=16 + index % 9,
            sampling=SAMPLINGS[index % len(SAMPLINGS)],
        )
        for index, prompt in enumerate(PROMPTS)
    ]


def answers(
    engine: Engine, requests: list[GenerationRequest], tenant: str
) -> Mapping[str, tuple[int, ...]]:
    """Ids by sequence; a tenant of its own keeps prefix cache and shared outputs apart."""
    emissions = run_all(engine, [replace(asked, tenant=tenant) for asked in requests])
    return {sequence_id: ids_of(found) for sequence_id, found in emissions.items()}


def test_speculation_changes_no_token_of_the_real_model(engine: Engine, text: Text) -> None:
    requests = requests_of(text)
    assert len(requests) >= 30
    engine.use_selectors(FixedSelector(None, 0), {})
    plain = answers(engine, requests, "plain")
    for draft_length in (3, 16):
        engine.use_selectors(RuleSelector(("prompt_lookup", "suffix"), draft_length), {})
        shuffled = requests[draft_length:] + requests[:draft_length]
        assert answers(engine, shuffled, f"{draft_length}") == plain
    use = engine.counters().per_drafter
    assert sum(entry.num_accepted_tokens for entry in use.values()) > 100


def test_no_trained_drafter_changes_a_token_of_the_real_model(engine: Engine, text: Text) -> None:
    assert {each.card.kind for each in FOLDERS} == {"head", "model"}
    assert all(each.card.num_acceptance_blocks is not None for each in FOLDERS)
    requests = requests_of(text)[::2]
    assert {asked.sampling.temperature for asked in requests} == {0.0, 0.7, 1.0}
    engine.use_selectors(FixedSelector(None, 0), {})
    plain = answers(engine, requests, "plain for trained")
    engine.use_selectors(Switching([each.name for each in TRAINED]), {})
    assert answers(engine, requests, "trained") == plain
    counters = engine.counters()
    assert not any(counters.num_drafter_failures.values())
    for kind in ("head", "model"):
        uses = [counters.per_drafter[each.name] for each in TRAINED if each.kind == kind]
        assert all(use.num_draft_tokens > 0 for use in uses)
        assert sum(use.num_accepted_tokens for use in uses) > 10


def test_no_drafter_changes_a_token_of_the_quantised_real_model(text: Text) -> None:
    config = TargetConfig(
        EMBEDDED_MODEL, numerics="invariant", quantization="float16", num_kv_tokens=4096
    )
    drafters = [*LOOKUPS, *TRAINED]
    engine, requests = build_engine(config, drafters), requests_of(text)[::3]
    engine.use_selectors(FixedSelector(None, 0), {})
    plain = answers(engine, requests, "plain")
    engine.use_selectors(Switching([each.name for each in drafters]), {})
    assert answers(engine, requests[5:] + requests[:5], "drafted") == plain
    assert not any(engine.counters().num_drafter_failures.values())
    uses = engine.counters().per_drafter
    assert sum(use.num_accepted_tokens for use in uses.values()) > 20


def test_hindsight_is_exact_on_the_real_model(engine: Engine, text: Text) -> None:
    repeating = requests_of(text)[1::9]  # greedy and sampled
    requests = [replace(asked, tenant=f"hindsight {asked.sequence_id}") for asked in repeating]
    names = tuple(drafter.name for drafter in LOOKUPS)
    watching = Watching(requests, names)
    engine.use_selectors(watching, {})
    plain = {key: len(ids_of(found)) for key, found in run_all(engine, requests).items()}
    num_rounds = 0
    for name, draft_length in (("prompt_lookup", 3), ("suffix", 16)):
        engine.use_selectors(FixedSelector(name, draft_length), {})
        fresh = [replace(asked, tenant=f"{asked.tenant} {name}") for asked in requests]
        for sequence_id, emissions in run_all(engine, fresh).items():
            (asked,) = (asked for asked in requests if asked.sequence_id == sequence_id)
            real = [len(emission.token_ids) for emission in emissions]
            num_tokens = plain[sequence_id]
            assert watching.predicted_rounds(asked, name, draft_length, num_tokens) == real
            num_rounds += len(real)
    assert num_rounds < 2 * sum(plain.values())


def test_a_seeded_answer_is_the_same_alone_and_in_a_batch(engine: Engine, text: Text) -> None:
    requests = requests_of(text)[:8]
    engine.use_selectors(FixedSelector("suffix", 4), {})
    together = answers(engine, requests, "together")
    for asked in requests[1:3]:
        assert answers(engine, [asked], "alone")[asked.sequence_id] == together[asked.sequence_id]


def test_plain_greedy_is_generate(engine: Engine, text: Text) -> None:
    folder = resolve_model(EMBEDDED_MODEL)
    stock: Any = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    engine.use_selectors(FixedSelector(None, 0), {})
    greedy = SamplingParams(temperature=0.0)
    requests = [replace(asked, sampling=greedy) for asked in requests_of(text)[:6]]
    ours = answers(engine, requests, "greedy")
    for asked in requests:
        prompt = torch.tensor([asked.prompt_ids])
        with torch.inference_mode():
            ids = stock.generate(
                prompt,
                attention_mask=torch.ones_like(prompt),
                max_new_tokens=asked.max_tokens,
                do_sample=False,
            )[0, prompt.shape[1] :]
        assert ours[asked.sequence_id] == tuple(ids.tolist())
