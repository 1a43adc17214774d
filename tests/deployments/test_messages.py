"""Messages: what is sent arrives, what is not ours is refused, and nothing is large."""

from __future__ import annotations

import msgspec
import pytest
from hosting import IDENTITY

from deployments.messages import (
    MAX_MESSAGE_TOKENS,
    AskDraft,
    AskScore,
    Close,
    Drafted,
    DraftPart,
    Drafts,
    Hello,
    Known,
    MessageError,
    NeedFrom,
    Open,
    Refused,
    Scored,
    ScorePart,
    Scores,
    ToHost,
    ToTarget,
    Verified,
    Welcome,
    decode_at_host,
    decode_at_target,
    encode,
)
from engine.request import SamplingParams

SAMPLING = SamplingParams(
    temperature=0.7,
    top_k=12,
    seed=2**64 - 1,
    logit_bias={5: 3.5},
    min_tokens=2,
    masked_ids=(2, 7),
    logprobs=3,
)
KNOWN = Known(7, 3, (1, 2, 49151))
TO_HOST: list[ToHost] = [
    Hello(1),
    Open(7, "chatcmpl-1", "tenant", IDENTITY, 2, SAMPLING, (1, 2, 3)),
    Verified((KNOWN, Known(8, 0, ()))),
    AskDraft(2, "code", (DraftPart(KNOWN, 16),)),
    AskScore(3, "code", (ScorePart(KNOWN, True),)),
    Close((7, 8)),
]
TO_TARGET: list[ToTarget] = [
    Welcome(1),
    Drafts(2, (Drafted(6, (4, 5), 3, 1, True), None)),
    Scores(3, ((Scored(5, 4, 2, False),), ())),
    NeedFrom(7, 5),
    Refused("there is no drafter 'x' here"),
]


@pytest.mark.parametrize("message", TO_HOST, ids=lambda each: type(each).__name__)
def test_what_a_target_sends_is_what_a_host_gets(message: ToHost) -> None:
    assert decode_at_host(encode(message)) == message


@pytest.mark.parametrize("message", TO_TARGET, ids=lambda each: type(each).__name__)
def test_what_a_host_sends_is_what_a_target_gets(message: ToTarget) -> None:
    assert decode_at_target(encode(message)) == message


def test_a_round_of_one_sequence_is_a_few_dozen_bytes() -> None:
    news, ask = Verified((Known(7, 300, (400, 9000)),)), AskDraft(9, "code", (DraftPart(KNOWN, 4),))
    answer = Drafts(9, (Drafted(302, (400, 9000, 20000, 3), 0, 0, False),))
    assert len(encode(news)) + len(encode(ask)) + len(encode(answer)) < 64


WRONG: dict[str, object] = {
    "no message": 5,
    "an unknown tag": [99, 1],
    "a tag of the other side": [6, 1],
    "a missing field": [3, 1, "code"],
    "a field too many": [0, 1, 2],
    "a wrong type": [0, "1"],
    "a negative number": [5, [-1]],
    "a token id that is too large": [2, [[1, 0, [2**31]]]],
    "too many tokens": [2, [[1, 0, [1] * (MAX_MESSAGE_TOKENS + 1)]]],
    "a long name": [3, 1, "x" * 1000, []],
    "an empty prompt": [1, 7, "a", "t", ["v", "w"], 0, {}, []],
    "impossible sampling": [1, 7, "a", "t", ["v", "w"], 1, {"temperature": 9.0}, [1]],
}


@pytest.mark.parametrize("content", WRONG.values(), ids=WRONG.keys())
def test_what_is_no_message_is_refused(content: object) -> None:
    with pytest.raises(MessageError):
        decode_at_host(msgspec.msgpack.encode(content))


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x93\x00", b"\x80\x04\x95pickle", bytes(200)])
def test_bytes_that_are_no_messages_are_refused(data: bytes) -> None:
    for decode in (decode_at_host, decode_at_target):
        with pytest.raises(MessageError):
            decode(data)
