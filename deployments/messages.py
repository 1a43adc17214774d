"""What targets and drafter hosts say to each other: msgpack arrays with a schema, of bounded size.

A sequence goes by a number that its target never uses twice. Verified tokens never change, so that
a message that comes twice, late or out of order changes nothing: a host takes what it lacks, and
says with `NeedFrom` where a gap begins. Answers name their question's round.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from engine.errors import EngineError
from engine.request import SamplingParams

MAX_MESSAGE_BYTES = 2**23
MAX_MESSAGE_TOKENS = 2**16  # of one sequence; more come in several messages
MAX_SEQUENCES = 2**12  # in one message

Count = Annotated[int, msgspec.Meta(ge=0, lt=2**31)]
Serial = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Name = Annotated[str, msgspec.Meta(max_length=512)]
Tokens = Annotated[tuple[Count, ...], msgspec.Meta(max_length=MAX_MESSAGE_TOKENS)]


class MessageError(Exception):
    """What arrived is no message of ours."""


class Identity(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """Hashes of the target's tokenizer and weights: ids must mean the same on both sides; and of
    what is configured of the host's drafters, so that two versions of them are not mixed."""

    vocabulary: Name
    weights: Name
    drafters: Name = "any"


class _Message(
    msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True, gc=False
):  # fmt: skip
    """Fields in their order; the first element of the array is the tag."""


class Hello(_Message, tag=0, frozen=True):
    """Are you there? Answered by `Welcome` of the same round."""

    round: Serial


class Open(_Message, tag=1, frozen=True):
    """A sequence and its first tokens; the prompt may go on in `Verified`."""

    sequence: Serial
    name: Name
    tenant: Name
    identity: Identity
    num_prompt_tokens: Annotated[int, msgspec.Meta(ge=1, lt=2**31)]
    sampling: SamplingParams
    tokens: Tokens


class Known(_Message, frozen=True):
    """`tokens` follow the first `base_length` verified tokens of a sequence."""

    sequence: Serial
    base_length: Count
    tokens: Tokens


class Verified(_Message, tag=2, frozen=True):
    """News of many sequences; no answer."""

    news: Annotated[tuple[Known, ...], msgspec.Meta(max_length=MAX_SEQUENCES)]


class DraftPart(_Message, frozen=True):
    known: Known
    draft_length: Count


class AskDraft(_Message, tag=3, frozen=True):
    """Drafts of `drafter` after what is known then; answered by `Drafts`."""

    round: Serial
    drafter: Name
    parts: Annotated[tuple[DraftPart, ...], msgspec.Meta(max_length=MAX_SEQUENCES)]


class ScorePart(_Message, frozen=True):
    known: Known
    finished: bool


class AskScore(_Message, tag=4, frozen=True):
    """Outcomes of `drafter` that were settled since the last time; answered by `Scores`."""

    round: Serial
    drafter: Name
    parts: Annotated[tuple[ScorePart, ...], msgspec.Meta(max_length=MAX_SEQUENCES)]


class Close(_Message, tag=5, frozen=True):
    """These sequences are over; no answer."""

    sequences: Annotated[tuple[Serial, ...], msgspec.Meta(max_length=MAX_SEQUENCES)]


class Welcome(_Message, tag=6, frozen=True):
    round: Serial


class Drafted(_Message, frozen=True):
    base_length: Count
    tokens: Tokens
    match_length: Count
    streak: Count
    is_stopped: bool


class Drafts(_Message, tag=7, frozen=True):
    """One per part asked for, in order; None is no offer."""

    round: Serial
    drafts: Annotated[tuple[Drafted | None, ...], msgspec.Meta(max_length=MAX_SEQUENCES)]


class Scored(_Message, frozen=True):
    base_length: Count
    num_offered: Count
    accept_length: Count
    censored: bool


class Scores(_Message, tag=8, frozen=True):
    """One list per part asked for, in order, by ascending base length."""

    round: Serial
    outcomes: Annotated[tuple[tuple[Scored, ...], ...], msgspec.Meta(max_length=MAX_SEQUENCES)]


class NeedFrom(_Message, tag=9, frozen=True):
    """The host has `length` tokens of the sequence, 0 if it does not know it: send the rest."""

    sequence: Serial
    length: Count


class Refused(_Message, tag=10, frozen=True):
    """The host cannot serve this target, whatever it sends."""

    reason: Name


ToHost = Hello | Open | Verified | AskDraft | AskScore | Close
ToTarget = Welcome | Drafts | Scores | NeedFrom | Refused

_encoder = msgspec.msgpack.Encoder()
_of_targets: msgspec.msgpack.Decoder[ToHost] = msgspec.msgpack.Decoder(ToHost)
_of_hosts: msgspec.msgpack.Decoder[ToTarget] = msgspec.msgpack.Decoder(ToTarget)


def encode(message: ToHost | ToTarget) -> bytes:
    return _encoder.encode(message)


def decode_at_host(data: bytes) -> ToHost:
    """Raises MessageError for anything that no target would send."""
    try:
        return _of_targets.decode(data)
    except (msgspec.MsgspecError, EngineError) as error:
        raise MessageError(str(error)) from error


def decode_at_target(data: bytes) -> ToTarget:
    """Raises MessageError for anything that no host would send."""
    try:
        return _of_hosts.decode(data)
    except msgspec.MsgspecError as error:
        raise MessageError(str(error)) from error
