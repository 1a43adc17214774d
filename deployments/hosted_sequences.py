"""What a host knows of its targets' sequences: verified tokens, and how far drafters have read.

Bounded: the least recently used sequences go when their tokens are too many, and idle ones after a
while. A target that goes on with one of them hears `NeedFrom` and sends it again.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

from deployments.messages import Known, Open, Scored
from engine.drafters.drafter import DraftRequest, ScoreRequest
from engine.request import SamplingParams

Key = tuple[bytes, int]
"""A client's routing id, and its number for the sequence."""


@dataclass(slots=True)
class HostedSequence:
    """`tokens` are verified. `outcomes`, by drafter, are settled and not yet asked for: the latest.

    `num_read` is how many of the tokens each drafter has caught up with; `asked` are those that a
    target has asked about it.
    """

    id: str
    tenant: str
    num_prompt_tokens: int
    sampling: SamplingParams
    last_used_s: float
    tokens: list[int] = field(default_factory=list)
    num_read: dict[str, int] = field(default_factory=dict)
    asked: set[str] = field(default_factory=set)
    outcomes: defaultdict[str, list[Scored]] = field(default_factory=lambda: defaultdict(list))

    @property
    def has_prompt(self) -> bool:
        return len(self.tokens) >= self.num_prompt_tokens

    def forget_drafter(self, drafter: str) -> None:
        self.num_read.pop(drafter, None)
        self.outcomes.pop(drafter, None)

    def num_unread(self, drafter: str) -> int:
        return len(self.tokens) - self.num_read.get(drafter, 0)

    def draft_request(self, draft_length: int) -> DraftRequest:
        return DraftRequest(
            self.id, self.tenant, self.tokens, self.num_prompt_tokens, self.sampling, draft_length
        )

    def score_request(self, finished: bool) -> ScoreRequest:
        return ScoreRequest(
            self.id, self.tenant, self.tokens, self.num_prompt_tokens, self.sampling, finished
        )


class HostedSequences:
    """The sequences of all clients, at most `max_tokens` tokens of them together."""

    def __init__(self, max_tokens: int) -> None:
        self._max_tokens = max_tokens
        self._num_tokens = 0
        self._by_key: OrderedDict[Key, HostedSequence] = OrderedDict()  # least recently used first

    def __len__(self) -> int:
        return len(self._by_key)

    @property
    def num_tokens(self) -> int:
        return self._num_tokens

    def find(self, key: Key) -> HostedSequence | None:
        return self._by_key.get(key)

    def all(self) -> list[HostedSequence]:
        return list(self._by_key.values())

    def open(self, client: bytes, message: Open, now_s: float) -> int | None:
        """Takes in a sequence, or what is new of one that is known; see `extend`."""
        key = (client, message.sequence)
        if key not in self._by_key:
            self._by_key[key] = HostedSequence(
                f"{message.name} {message.sequence} {client.hex()}",
                message.tenant,
                message.num_prompt_tokens,
                message.sampling,
                now_s,
            )
        return self.extend(client, Known(message.sequence, 0, message.tokens), now_s)

    def extend(self, client: bytes, known: Known, now_s: float) -> int | None:
        """Appends what is new. Before a gap nothing is: then gives how many tokens there are."""
        key = (client, known.sequence)
        sequence = self._by_key.get(key)
        num_tokens = len(sequence.tokens) if sequence else 0
        if sequence is None or known.base_length > num_tokens:
            return num_tokens
        sequence.last_used_s = now_s
        self._by_key.move_to_end(key)
        sequence.tokens += known.tokens[num_tokens - known.base_length :]
        self._num_tokens += len(sequence.tokens) - num_tokens
        return None

    def close(self, client: bytes, numbers: Sequence[int]) -> list[HostedSequence]:
        """Forgets sequences, and gives them. Unknown ones are passed over."""
        keys = [(client, number) for number in numbers if (client, number) in self._by_key]
        return [self._drop(key) for key in keys]

    def evict(self, now_s: float, idle_s: float) -> list[HostedSequence]:
        """Forgets what has been idle for so long, and what is too much; gives these."""
        gone = []
        while self._by_key:
            key, oldest = next(iter(self._by_key.items()))
            if now_s - oldest.last_used_s < idle_s and self._num_tokens <= self._max_tokens:
                break
            gone.append(self._drop(key))
        return gone

    def _drop(self, key: Key) -> HostedSequence:
        sequence = self._by_key.pop(key)
        self._num_tokens -= len(sequence.tokens)
        return sequence
