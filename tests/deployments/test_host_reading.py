"""What a host reads before and between its answers: long texts in parts, short news together."""

from __future__ import annotations

from collections.abc import Sequence

from echo_host import CLIENT, Echo, Target, ask, opened, tokens_of
from hosting import IDENTITY

from deployments.host_service import HostService
from deployments.messages import AskDraft, DraftPart, Drafts, Known, encode
from engine.drafters.drafter import ScoreRequest


class Slow(Echo):
    """Reads in parts; notes how many tokens each took."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: list[int] = []
        self._num_read: dict[str, int] = {}

    def read(self, requests: Sequence[ScoreRequest], max_tokens: int) -> list[int]:
        left, budget = [], max_tokens
        for request in requests:
            start = self._num_read.get(request.sequence_id, 0)
            end = min(len(request.tokens), start + budget)
            budget -= end - start
            self._num_read[request.sequence_id] = end
            left.append(len(request.tokens) - end)
        self.reads.append(max_tokens - budget)
        return left


LONG = tuple(range(1, 1001))


def test_a_long_text_is_read_in_parts_between_which_others_are_answered() -> None:
    slow = Slow()
    target = Target(HostService([slow], IDENTITY))
    assert tokens_of(target.send(opened(1, LONG), ask(1000))) is None  # as long as it is not read
    assert tokens_of(target.send(opened(2), ask(3, number=2))) == (3, 3)
    assert max(slow.reads) <= 256
    assert not slow.scored
    target.settle()
    assert max(slow.reads) <= 256
    assert sum(slow.reads) == 1003
    assert tokens_of(target.send(ask(1000))) == (1000, 1000)
    assert len(slow.scored) == 1


def test_what_is_asked_for_all_the_time_is_read_in_the_end() -> None:
    slow = Slow()
    target = Target(HostService([slow], IDENTITY))
    target.send(opened(1, LONG), opened(2))
    for _ in range(100):
        target.service.receive(CLIENT, encode(ask(3, number=2)), 0.0)
        target.service.work(0.0)
    assert sum(slow.reads) == 1003


def test_a_drafter_that_fails_to_read_is_one_that_failed() -> None:
    class Broken(Slow):
        def read(self, requests: Sequence[ScoreRequest], max_tokens: int) -> list[int]:
            raise RuntimeError("out of memory")

    broken = Broken()
    target = Target(HostService([broken], IDENTITY))
    assert target.send(opened(), ask(3)) == [Drafts(9, ())]
    assert broken.drafted == []
    assert len(broken.forgotten) == 1


def test_many_short_news_are_read_for_one_question() -> None:
    slow = Slow()
    target = Target(HostService([slow], IDENTITY))
    target.send(*(opened(number) for number in range(100)))
    target.settle()
    news = tuple(DraftPart(Known(number, 3, (4, 5, 6, 7)), 2) for number in range(100))
    (answer,) = target.send(AskDraft(1, "echo", news))
    assert isinstance(answer, Drafts)
    assert all(answer.drafts)
