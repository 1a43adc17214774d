"""An answer that goes on behind what was said elsewhere: token for token the same one."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tiny_models import ids_of, run_all, tiny_engine
from tiny_requests import request

from engine.drafters.prompt_lookup import PromptLookupDrafter
from engine.errors import InvalidRequestError
from engine.request import Emission, GenerationRequest, SamplingParams
from policies.fixed import FixedSelector

OPTIONS: dict[str, SamplingParams] = {
    "greedy": SamplingParams(temperature=0.0),
    "sampled": SamplingParams(seed=5),
    "truncated": SamplingParams(seed=6, temperature=0.8, top_p=0.9, top_k=20, min_p=0.01),
    "penalties": SamplingParams(seed=7, presence_penalty=0.9, frequency_penalty=0.7),
    "repetition": SamplingParams(seed=8, repetition_penalty=1.4, temperature=0.5),
    "min_tokens": SamplingParams(seed=9, min_tokens=14),
    "bias": SamplingParams(seed=10, logit_bias={7: 3.0}, logprobs=3),
}
LENGTH = 24


def asked(sampling: SamplingParams, **options: object) -> GenerationRequest:
    return replace(request(3, 0.0, max_tokens=LENGTH), sampling=sampling, **options)  # type: ignore[arg-type]


def said(emissions: list[Emission]) -> tuple[object, ...]:
    return (
        ids_of(emissions),
        "".join(each.text for each in emissions),
        [item for each in emissions for item in each.logprobs],
        emissions[-1].finish_reason,
        emissions[-1].num_prompt_tokens,
    )


@pytest.mark.parametrize("sampling", OPTIONS.values(), ids=OPTIONS.keys())
@pytest.mark.parametrize("drafts", [False, True])
def test_it_goes_on_as_if_it_had_never_stopped(sampling: SamplingParams, drafts: bool) -> None:
    whole = run_all(tiny_engine(), [asked(sampling)])
    (emissions,) = whole.values()
    ids = ids_of(emissions)
    engine = tiny_engine([PromptLookupDrafter("lookup", 8)])
    if drafts:
        engine.use_selectors(FixedSelector("lookup", 4), {})
    for num_said in range(0, len(ids), 3):
        (rest,) = run_all(engine, [asked(sampling, emitted_ids=ids[:num_said])]).values()
        text = "".join(each.text for each in emissions[:num_said])
        log_probs = [item for each in emissions[:num_said] for item in each.logprobs]
        found = said(rest)
        assert (
            ids[:num_said] + ids_of(rest),
            text + "".join(each.text for each in rest),
            log_probs + [item for each in rest for item in each.logprobs],
            *found[3:],
        ) == said(emissions)


@pytest.mark.parametrize("length", [2, 3, 5])
def test_a_stop_string_is_found_where_it_would_have_been(length: int) -> None:
    """Wherever the cut is: before, inside or right behind what is held back for it."""
    sampling = OPTIONS["sampled"]
    (whole,) = run_all(tiny_engine(), [asked(sampling, ignore_eos=True)]).values()
    text = "".join(each.text for each in whole)
    stop = text[9 : 9 + length]
    options = {"stop": (stop, "never said"), "ignore_eos": True}
    (stopped,) = run_all(tiny_engine(), [asked(sampling, **options)]).values()
    assert stopped[-1].finish_reason == "stop"
    ids = ids_of(stopped)
    engine = tiny_engine()
    for num_said in range(len(ids)):
        again = asked(sampling, emitted_ids=ids[:num_said], **options)
        (rest,) = run_all(engine, [again]).values()
        before = "".join(each.text for each in stopped[:num_said])
        assert ids[:num_said] + ids_of(rest) == ids
        assert before + "".join(e.text for e in rest) == "".join(e.text for e in stopped)
        assert rest[-1].finish_reason == "stop"


def test_a_finished_answer_cannot_go_on() -> None:
    (whole,) = run_all(tiny_engine(), [asked(OPTIONS["greedy"], ignore_eos=True)]).values()
    engine = tiny_engine()
    with pytest.raises(InvalidRequestError, match="emitted_ids"):
        engine.submit(asked(OPTIONS["greedy"], ignore_eos=True, emitted_ids=ids_of(whole)))
    assert not engine.has_work
