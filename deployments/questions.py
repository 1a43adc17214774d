"""What a target has asked its hosts and not been answered yet.

A draft has a deadline, and a replica that misses it is not asked before it has answered something.
Nothing waits for a score: it may come much later, and one that never comes is nobody's debt.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from deployments.host_link import HostLink
from deployments.messages import Drafts, Scores

SCORE_TIMEOUT_S = 5.0  # until scores are given up, and may be asked for again


@dataclass(slots=True)
class Question:
    """Asked of one replica about the sequences of `indices`, requests of the call that asked.

    `answer` stays None if it was refused, or is `is_late`: none came before the deadline.
    """

    indices: tuple[int, ...]
    deadline_s: float
    is_urgent: bool = True
    answer: Drafts | Scores | None = None
    is_late: bool = False
    is_over: bool = False


class Questions:
    """Those that are open, by their round."""

    def __init__(self) -> None:
        self._open: dict[int, tuple[HostLink, Question]] = {}

    def add(self, number: int, link: HostLink, question: Question) -> None:
        self._open[number] = (link, question)

    def answer(self, link: HostLink, message: Drafts | Scores) -> None:
        """Passes over what was not asked of this replica, or is no answer to it."""
        found = self._open.get(message.round)
        if found is not None and found[0] is link:
            found[1].answer = message
            self._end([message.round])

    def refuse(self, link: HostLink) -> None:
        """Nothing more comes from it."""
        self._end([n for n, (asked_of, _) in self._open.items() if asked_of is link])

    def give_up(self, now_s: float) -> None:
        """Ends what is late. A replica owes the first urgent answer that it did not give in time.

        Its other urgent questions end with that one. They were not late, so that one silence counts
        once.
        """
        debtors: set[HostLink] = set()
        late = [(n, *found) for n, found in self._open.items() if found[1].deadline_s <= now_s]
        for number, link, question in late:
            question.is_late = link not in debtors
            if question.is_urgent and question.is_late:
                debtors.add(link)
                link.owe(number, now_s)
        urgent = [n for n, (link, q) in self._open.items() if q.is_urgent and link in debtors]
        self._end({*(number for number, _, _ in late), *urgent})

    def _end(self, numbers: Iterable[int]) -> None:
        for number in numbers:
            self._open.pop(number)[1].is_over = True
