"""Chat completions of the running application, through OpenAI's own client."""

from __future__ import annotations

from typing import Any

import pytest
from openai import OpenAI
from openai.types.chat import ChatCompletion, ChatCompletionChunk

MODEL = "smollm2-135m-instruct"
END = 2
TOPIC = [{"role": "user", "content": "Name three colours of the rainbow."}]
TRAINED = [f"{domain}-head" for domain in ("code", "math", "chat", "edit")]
TRAINED += [f"{domain}-model" for domain in ("code", "math", "chat")]
DRAFTERS = ["far", "lookup", "suffix", *TRAINED]


def ask(client: OpenAI, **parameters: Any) -> ChatCompletion:
    given = {"messages": TOPIC, "max_tokens": 16, "temperature": 0, **parameters}
    answer = client.chat.completions.create(model=MODEL, **given)
    assert isinstance(answer, ChatCompletion)
    return answer


def stream(client: OpenAI, **parameters: Any) -> list[ChatCompletionChunk]:
    given = {"messages": TOPIC, "max_tokens": 16, "temperature": 0, **parameters}
    return list(client.chat.completions.create(model=MODEL, stream=True, **given))


def text_of(answer: ChatCompletion, index: int = 0) -> str:
    content = answer.choices[index].message.content
    assert content is not None
    return content


def streamed_text(chunks: list[ChatCompletionChunk], index: int = 0) -> str:
    choices = [choice for chunk in chunks for choice in chunk.choices if choice.index == index]
    return "".join(choice.delta.content or "" for choice in choices)


@pytest.fixture(scope="module")
def greedy(client: OpenAI) -> str:
    """What the model says at temperature 0, decoded plainly."""
    return text_of(ask(client, extra_body={"hedgerow": {"drafters": []}}))


def test_answer_has_openai_s_fields(client: OpenAI) -> None:
    answer = ask(client)
    assert answer.object == "chat.completion"
    assert answer.id.startswith("chatcmpl-")
    assert answer.model == MODEL
    assert answer.system_fingerprint
    assert answer.choices[0].message.role == "assistant"
    assert text_of(answer).strip()


def test_stream_joins_to_the_whole_answer(client: OpenAI, greedy: str) -> None:
    chunks = stream(client)
    assert streamed_text(chunks) == greedy
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [c.choices[0].finish_reason for c in chunks][-1] == "length"
    assert len({chunk.id for chunk in chunks}) == 1


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_length_is_bounded_by_either_name(client: OpenAI, name: str) -> None:
    answer = ask(client, **({"max_tokens": None} | {name: 5}))
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 5
    assert answer.choices[0].finish_reason == "length"


@pytest.mark.parametrize("streaming", [False, True])
def test_stop_string_across_tokens_cuts_the_text_before_it(
    client: OpenAI, greedy: str, streaming: bool
) -> None:
    middle = len(greedy) // 2
    stop = greedy[middle - 3 : middle + 4]
    before = greedy[: greedy.index(stop)]
    if streaming:
        chunks = stream(client, stop=stop)
        assert streamed_text(chunks) == before
        assert chunks[-1].choices[0].finish_reason == "stop"
    else:
        answer = ask(client, stop=["\u2603 never", stop])
        assert text_of(answer) == before
        assert answer.choices[0].finish_reason == "stop"


def test_stop_string_that_never_completes_holds_nothing_back(client: OpenAI, greedy: str) -> None:
    assert streamed_text(stream(client, stop=greedy[-4:] + "\u2603")) == greedy


def test_usage_stops_where_the_text_stops(client: OpenAI, greedy: str) -> None:
    answer = ask(client, stop=greedy[4:8], logprobs=True)
    assert answer.usage is not None
    assert answer.choices[0].logprobs is not None
    content = answer.choices[0].logprobs.content
    assert content is not None
    assert answer.usage.completion_tokens == len(content) < 16


def test_end_token_stops_and_has_no_text(client: OpenAI) -> None:
    answer = ask(client, logit_bias={str(END): 100})
    assert answer.choices[0].finish_reason == "stop"
    assert text_of(answer) == ""


def test_ignoring_the_end_token_runs_to_the_length(client: OpenAI) -> None:
    extra = {"ignore_eos": True}
    answer = ask(client, logit_bias={str(END): 100}, max_tokens=4, extra_body=extra)
    assert answer.choices[0].finish_reason == "length"


def test_min_tokens_holds_the_end_token_off(client: OpenAI) -> None:
    answer = ask(client, logit_bias={str(END): 100}, extra_body={"min_tokens": 4})
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 5
    assert answer.choices[0].finish_reason == "stop"


def test_stop_token_ids_stop(client: OpenAI) -> None:
    answer = ask(client, logit_bias={"28": 100}, extra_body={"stop_token_ids": [28]})
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 1


@pytest.mark.parametrize(
    "narrow",
    [{"extra_body": {"top_k": 1}}, {"top_p": 1e-6}, {"extra_body": {"min_p": 1.0}}],
    ids=["top_k", "top_p", "min_p"],
)
def test_a_filter_that_leaves_one_token_is_greedy(
    client: OpenAI, greedy: str, narrow: dict[str, Any]
) -> None:
    assert text_of(ask(client, temperature=1.0, seed=3, **narrow)) == greedy


def test_a_seed_fixes_a_sampled_answer_and_another_seed_changes_it(client: OpenAI) -> None:
    texts = [text_of(ask(client, temperature=1.0, seed=seed)) for seed in (5, 5, 6)]
    assert texts[0] == texts[1] != texts[2]
    assert streamed_text(stream(client, temperature=1.0, seed=5)) == texts[0]


def test_without_a_seed_answers_differ(client: OpenAI) -> None:
    texts = {text_of(ask(client, temperature=1.5)) for _ in range(2)}
    assert len(texts) == 2


def test_choices_are_numbered_differ_and_follow_the_seed(client: OpenAI) -> None:
    first = ask(client, n=3, temperature=1.0, seed=7)
    assert [choice.index for choice in first.choices] == [0, 1, 2]
    texts = [text_of(first, i) for i in range(3)]
    assert len(set(texts)) == 3
    chunks = stream(client, n=3, temperature=1.0, seed=7)
    assert [streamed_text(chunks, i) for i in range(3)] == texts
    assert text_of(ask(client, temperature=1.0, seed=7)) == texts[0]


def test_choices_count_their_prompt_once(client: OpenAI) -> None:
    one, three = ask(client, max_tokens=2).usage, ask(client, max_tokens=2, n=3).usage
    assert one is not None
    assert three is not None
    assert three.prompt_tokens == one.prompt_tokens
    assert three.completion_tokens == 6


@pytest.mark.parametrize(
    "penalty",
    [
        {"presence_penalty": 2.0},
        {"frequency_penalty": 2.0},
        {"extra_body": {"repetition_penalty": 1.8}},
    ],
    ids=lambda value: next(iter(value)),
)
def test_penalties_keep_the_model_from_repeating(client: OpenAI, penalty: dict[str, Any]) -> None:
    messages = [{"role": "user", "content": "Write the word bird again and again: bird bird bird"}]
    plain = text_of(ask(client, messages=messages, max_tokens=24))
    penalised = text_of(ask(client, messages=messages, max_tokens=24, **penalty))
    assert penalised != plain


def test_logit_bias_forbids_and_forces_tokens(client: OpenAI) -> None:
    first = ask(client, max_tokens=1, logprobs=True, top_logprobs=1)
    forced = ask(client, max_tokens=3, logit_bias={"28": 100})
    assert text_of(forced) == ",,,"
    assert first.choices[0].logprobs is not None


def test_log_probabilities_match_the_text_and_its_bytes(client: OpenAI, greedy: str) -> None:
    answer = ask(client, logprobs=True, top_logprobs=3)
    assert answer.choices[0].logprobs is not None
    content = answer.choices[0].logprobs.content
    assert content is not None
    assert b"".join(bytes(entry.bytes or []) for entry in content).decode() == greedy
    for entry in content:
        values = [top.logprob for top in entry.top_logprobs]
        assert len(values) == 3
        assert values == sorted(values, reverse=True)
        assert entry.logprob == values[0] <= 0
        assert entry.top_logprobs[0].token == entry.token


def test_streamed_log_probabilities_equal_the_whole_ones(client: OpenAI) -> None:
    whole = ask(client, logprobs=True).choices[0].logprobs
    assert whole is not None
    assert whole.content is not None
    chunks = stream(client, logprobs=True)
    parts = [chunk.choices[0].logprobs for chunk in chunks]
    streamed = [entry for part in parts if part for entry in part.content or []]
    assert [e.token for e in streamed] == [e.token for e in whole.content]
    for one, other in zip(streamed, whole.content, strict=True):
        assert one.logprob == pytest.approx(other.logprob, abs=1e-4)


def test_usage_chunk_is_sent_when_asked_for(client: OpenAI) -> None:
    chunks = stream(client, stream_options={"include_usage": True})
    assert all(chunk.usage is None for chunk in chunks[:-1])
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 16


def test_usage_adds_up_and_reports_speculation(client: OpenAI) -> None:
    usage = ask(client, extra_body={"hedgerow": {"selector": "eager"}}, max_tokens=32).usage
    assert usage is not None
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    details = usage.completion_tokens_details
    assert details is not None
    speculation = usage.model_extra["speculation"] if usage.model_extra else {}
    accepted = speculation["num_accepted_tokens"]
    assert details.accepted_prediction_tokens == accepted
    assert details.rejected_prediction_tokens == speculation["num_draft_tokens"] - accepted
    assert speculation["num_rounds"] + accepted == usage.completion_tokens
    length = usage.completion_tokens / speculation["num_rounds"]
    assert speculation["mean_acceptance_length"] == pytest.approx(length)


def test_a_prompt_seen_before_is_cached(client: OpenAI) -> None:
    messages = [{"role": "user", "content": "The quick brown fox jumps over it. " * 8}]
    for _ in range(2):
        usage = ask(client, messages=messages, max_tokens=2).usage
    assert usage is not None
    assert usage.prompt_tokens_details is not None
    assert (usage.prompt_tokens_details.cached_tokens or 0) > 0


@pytest.mark.parametrize(
    "narrow",
    [
        {"drafters": []},
        {"drafters": ["lookup"]},
        {"drafters": ["suffix"]},
        {"drafters": TRAINED},
        {"max_draft_length": 0},
        {"max_draft_length": 2},
        {"selector": "plain"},
        {"selector": "eager"},
        {"selector": "rule"},
        {"selector": "ucbspec"},
        {"selector": "exp3spec"},
        {"selector": "hedge"},
        {"selector": "normalhedge"},
        {},
        {"selector": "eager", "drafters": ["lookup"], "max_draft_length": 3},
    ],
    ids=str,
)
@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_narrowing_speculation_changes_no_word(
    client: OpenAI, narrow: dict[str, Any], temperature: float
) -> None:
    sentence = "one two three four one two three four one two"
    parameters: dict[str, Any] = {
        "messages": [{"role": "user", "content": f"Repeat: {sentence}"}],
        "temperature": temperature,
        "seed": 1,
    }
    plain = ask(client, extra_body={"hedgerow": {"drafters": []}}, **parameters)
    narrowed = ask(client, extra_body={"hedgerow": narrow}, **parameters)
    assert text_of(narrowed) == text_of(plain)
    assert narrowed.usage is not None
    used = (narrowed.usage.model_extra or {})["speculation"]
    assert set(used["per_drafter"]) <= set(narrow.get("drafters", DRAFTERS))
    if narrow.get("max_draft_length") == 0 or narrow.get("selector") == "plain":
        assert used["num_draft_tokens"] == 0


def test_developer_is_system_and_parts_are_text(client: OpenAI) -> None:
    plain = [{"role": "system", "content": "Be brief."}, *TOPIC]
    parts = [
        {"role": "developer", "content": [{"type": "text", "text": "Be brief."}]},
        {"role": "user", "content": [{"type": "text", "text": TOPIC[0]["content"]}]},
    ]
    assert text_of(ask(client, messages=plain)) == text_of(ask(client, messages=parts))


def test_a_conversation_goes_on_with_the_client_s_own_message(client: OpenAI) -> None:
    answer = ask(client)
    again = {"role": "user", "content": "Why?"}
    messages = [*TOPIC, answer.choices[0].message.model_dump(), again]
    assert text_of(ask(client, messages=messages))


def test_unicode_goes_in_and_comes_out_whole(client: OpenAI) -> None:
    messages = [{"role": "user", "content": "Repeat this: 😀 世界 Grüße 😀 世界 Grüße"}]
    chunks = stream(client, messages=messages, max_tokens=32, logit_bias={str(END): -100})
    whole = text_of(ask(client, messages=messages, max_tokens=32, logit_bias={str(END): -100}))
    assert streamed_text(chunks) == whole
    assert all("\ufffd" not in (c.choices[0].delta.content or "") for c in chunks[:-2])


def test_all_parameters_work_together(client: OpenAI) -> None:
    parameters: dict[str, Any] = {
        "n": 2,
        "temperature": 0.9,
        "top_p": 0.95,
        "presence_penalty": 0.2,
        "frequency_penalty": 0.2,
        "logit_bias": {"28": -5},
        "seed": 11,
        "stop": ["\u2603", "never ever"],
        "logprobs": True,
        "top_logprobs": 2,
        "user": "someone",
        "extra_body": {
            "top_k": 50,
            "min_p": 0.01,
            "repetition_penalty": 1.05,
            "min_tokens": 4,
            "ignore_eos": True,
            "stop_token_ids": [0],
            "hedgerow": {"drafters": ["lookup", "suffix"], "max_draft_length": 6},
        },
    }
    whole = ask(client, **parameters)
    chunks = stream(client, stream_options={"include_usage": True}, **parameters)
    for index in range(2):
        assert streamed_text(chunks, index) == text_of(whole, index)
