"""Chat completions asked for through OpenAI's own client, and their texts."""

from __future__ import annotations

from typing import Any

from openai import OpenAI
from openai.types.chat import ChatCompletion, ChatCompletionChunk

MODEL = "smollm2-135m-instruct"
END = 2
TOPIC = [{"role": "user", "content": "Name three colours of the rainbow."}]


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
