"""Completions and models of the running application, through OpenAI's own client."""

from __future__ import annotations

from typing import Any

import pytest
from openai import OpenAI
from openai.types import Completion

from engine.model_files import resolve_model
from engine.text import Text

MODEL = "smollm2-135m-instruct"
PROMPT = "The hedge was full of birds, and"


def ask(client: OpenAI, prompt: Any = PROMPT, **parameters: Any) -> Completion:
    given = {"max_tokens": 12, "temperature": 0, **parameters}
    answer = client.completions.create(model=MODEL, prompt=prompt, **given)
    assert isinstance(answer, Completion)
    return answer


def stream(client: OpenAI, **parameters: Any) -> list[Completion]:
    given = {"prompt": PROMPT, "max_tokens": 12, "temperature": 0, **parameters}
    return list(client.completions.create(model=MODEL, stream=True, **given))


@pytest.fixture(scope="module")
def text() -> Text:
    return Text.load(resolve_model(MODEL))


def test_answer_has_openai_s_fields(client: OpenAI) -> None:
    answer = ask(client)
    assert answer.object == "text_completion"
    assert answer.id.startswith("cmpl-")
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 12


def test_sixteen_tokens_unless_told_otherwise(client: OpenAI) -> None:
    usage = ask(client, max_tokens=None, extra_body={"ignore_eos": True}).usage
    assert usage is not None
    assert usage.completion_tokens == 16


def test_stream_joins_to_the_whole_answer(client: OpenAI) -> None:
    chunks = stream(client)
    assert "".join(chunk.choices[0].text for chunk in chunks) == ask(client).choices[0].text
    assert chunks[-1].choices[0].finish_reason == "length"


def test_token_ids_and_text_are_the_same_prompt(client: OpenAI, text: Text) -> None:
    ids = text.encode(PROMPT, add_special_tokens=True)
    assert ask(client, prompt=ids).choices[0].text == ask(client).choices[0].text


def test_a_list_of_prompts_is_answered_in_order(client: OpenAI, text: Text) -> None:
    prompts = [PROMPT, "Two and two make"]
    alone = [ask(client, prompt=prompt).choices[0].text for prompt in prompts]
    together = ask(client, prompt=prompts)
    assert [choice.text for choice in together.choices] == alone
    ids = [text.encode(prompt, add_special_tokens=True) for prompt in prompts]
    assert [choice.text for choice in ask(client, prompt=ids).choices] == alone


def test_choices_of_several_prompts_are_grouped_by_prompt(client: OpenAI) -> None:
    parameters: dict[str, Any] = {"n": 2, "temperature": 1.0, "seed": 4}
    both = ask(client, prompt=[PROMPT, "Once"], **parameters)
    assert [choice.index for choice in both.choices] == [0, 1, 2, 3]
    alone = ask(client, prompt="Once", **parameters)
    assert [c.text for c in both.choices[2:]] == [c.text for c in alone.choices]


@pytest.mark.parametrize("streaming", [False, True])
def test_stop_cuts_before_its_first_letter(client: OpenAI, streaming: bool) -> None:
    whole = ask(client, max_tokens=24).choices[0].text
    stop = whole[9:14]
    before = whole[: whole.index(stop)]
    if streaming:
        chunks = stream(client, max_tokens=24, stop=[stop])
        assert "".join(chunk.choices[0].text for chunk in chunks) == before
    else:
        assert ask(client, max_tokens=24, stop=[stop]).choices[0].text == before


def test_log_probabilities_have_offsets_into_the_text(client: OpenAI) -> None:
    choice = ask(client, logprobs=2).choices[0]
    found = choice.logprobs
    assert found is not None
    assert found.tokens is not None
    assert found.text_offset is not None
    assert found.token_logprobs is not None
    assert found.top_logprobs is not None
    assert "".join(found.tokens) == choice.text
    for token, start in zip(found.tokens, found.text_offset, strict=True):
        assert choice.text[start : start + len(token)] == token
    for token, logprob, top in zip(
        found.tokens, found.token_logprobs, found.top_logprobs, strict=True
    ):
        assert top[token] == logprob == max(top.values())


def test_streamed_offsets_go_on_from_chunk_to_chunk(client: OpenAI) -> None:
    whole = ask(client, logprobs=1).choices[0].logprobs
    parts = [chunk.choices[0].logprobs for chunk in stream(client, logprobs=1)]
    assert whole is not None
    offsets = [offset for part in parts if part for offset in part.text_offset or []]
    assert offsets == whole.text_offset


def test_log_probabilities_of_the_token_alone_cost_no_alternatives(client: OpenAI) -> None:
    found = ask(client, logprobs=0).choices[0].logprobs
    assert found is not None
    assert found.top_logprobs is not None
    assert all(len(top) == 1 for top in found.top_logprobs)


def test_usage_chunk_of_a_stream(client: OpenAI) -> None:
    chunks = stream(client, stream_options={"include_usage": True})
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 12


def test_a_stream_of_emoji_never_breaks_a_character(client: OpenAI) -> None:
    prompt = "😀😃😄😁😀😃😄😁😀😃😄😁😀"
    chunks = stream(client, prompt=prompt, max_tokens=24)
    joined = "".join(chunk.choices[0].text for chunk in chunks)
    assert joined == ask(client, prompt=prompt, max_tokens=24).choices[0].text
    assert "\ufffd" not in "".join(chunk.choices[0].text for chunk in chunks[:-1])


def test_models_are_listed_and_retrieved(client: OpenAI) -> None:
    (model,) = client.models.list().data
    assert model.id == MODEL
    assert client.models.retrieve(MODEL) == model
