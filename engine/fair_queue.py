"""Who is next: tenants take turns by their virtual token counters (arXiv 2401.00588, algorithm 2).

A counter grows with the work that was done for its tenant, over the tenant's weight; whoever has
the lowest is next. A tenant that comes back is lifted to those that waited meanwhile, so that
nobody saves up turns; one that has something running keeps what it lags behind by, up to
`max_lag`, as it would lose a little between any two of its requests otherwise. A tenant's own
requests go by priority, then first come, first served.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from engine.sequence import Sequence

PROMPT_TOKEN_COST = 1.0
OUTPUT_TOKEN_COST = 2.0
"""The paper's; a prompt's tokens are charged unless the prefix cache had them, drafts never."""

MAX_IDLE = 4096
"""So many tenants with nothing to do are remembered; then the half that had least is forgotten."""


@dataclass(slots=True)
class _Account:
    weight: float = 1.0
    counter: float = 0.0
    num_live: int = 0
    waiting: list[Sequence] = field(default_factory=list)

    @property
    def turn(self) -> tuple[float, int, int]:
        """Of two that had the same, the one that has less running."""
        return self.counter, self.num_live - len(self.waiting), self.waiting[0].arrival


def _order(sequence: Sequence) -> tuple[int, int]:
    return sequence.request.priority, sequence.arrival


class FairQueue:
    """The waiting sequences of all tenants, and what each tenant has had so far."""

    def __init__(self, max_lag: float = 0.0) -> None:
        """`max_lag` is in work; the paper's bounds hold up to max(w_p L, w_q M)."""
        self._max_lag = max_lag
        self._accounts: dict[str, _Account] = {}  # of tenants with something waiting or running
        self._idle: dict[str, _Account] = {}
        self._num_arrivals = 0
        self._num_waiting = 0
        self._last = _Account()  # whose last waiting sequence was taken latest

    def __len__(self) -> int:
        return self._num_waiting

    def __iter__(self) -> Iterator[Sequence]:
        """Tenant by tenant, the one whose turn it is first."""
        for account in self._in_turn():
            yield from account.waiting

    @property
    def weights(self) -> dict[str, float]:
        """Of the tenants that have something waiting or running."""
        return {name: account.weight for name, account in self._accounts.items()}

    @property
    def next_tenant(self) -> str | None:
        """Whose turn it is; None if nothing waits."""
        accounts = ((a.turn, name) for name, a in self._accounts.items() if a.waiting)
        return min(accounts)[1] if self._num_waiting else None

    def has_room(self, tenant: str, capacity: int, num_coming: int = 0) -> bool:
        """Whether one more of this tenant may wait: as many as there are places left.

        So one tenant alone fills half of the `capacity`, and another always finds a place.
        `num_coming` more of this tenant have been let in and are not here yet.
        """
        account = self._accounts.get(tenant)
        num_own = num_coming + (len(account.waiting) if account is not None else 0)
        num_free = capacity - self._num_waiting - num_coming
        return 0 < num_free >= num_own

    def add(self, sequence: Sequence) -> None:
        """A new sequence waits; its request's weight is its tenant's from now on."""
        self._num_arrivals += 1
        sequence.arrival = self._num_arrivals
        tenant = sequence.request.tenant
        if tenant not in self._accounts:
            known = tenant in self._idle
            self._accounts[tenant] = self._idle.pop(tenant) if known else _Account()
        account = self._accounts[tenant]
        account.weight = sequence.request.weight
        account.num_live += 1
        self._insert(account, sequence)

    def put_back(self, sequence: Sequence) -> None:
        """One that was taken waits again, in its old place."""
        self._insert(self._account(sequence), sequence)

    def take(self, sequence: Sequence) -> None:
        """It waits no more, and is not done."""
        account = self._account(sequence)
        account.waiting.remove(sequence)
        self._num_waiting -= 1
        if not account.waiting:
            self._last = account

    def leave(self, sequence: Sequence) -> None:
        """It is done, whether it waited or not."""
        account = self._account(sequence)
        if sequence in account.waiting:
            self.take(sequence)
        account.num_live -= 1
        if not account.num_live:
            tenant = sequence.request.tenant
            self._idle[tenant] = self._accounts.pop(tenant)
        if len(self._idle) > MAX_IDLE:
            by_counter = sorted(self._idle.items(), key=lambda item: item[1].counter)
            self._idle = dict(by_counter[MAX_IDLE // 2 :])

    def charge(self, sequence: Sequence, cost: float) -> None:
        """Work that was done for the sequence's tenant."""
        account = self._account(sequence)
        account.counter += cost / account.weight

    def heads(self, is_held_up: Callable[[Sequence], bool]) -> Iterator[Sequence]:
        """Of every tenant in turn its first sequence that is not held up.

        Ends with whoever is started, as the order changes then.
        """
        for account in self._in_turn():
            for sequence in account.waiting:
                if not is_held_up(sequence):
                    yield sequence
                    break

    def _in_turn(self) -> list[_Account]:
        waiting = (account for account in self._accounts.values() if account.waiting)
        return sorted(waiting, key=lambda account: account.turn)

    def _account(self, sequence: Sequence) -> _Account:
        return self._accounts[sequence.request.tenant]

    def _insert(self, account: _Account, sequence: Sequence) -> None:
        if not account.waiting:
            account.counter = max(account.counter, self._floor(account))
        bisect.insort(account.waiting, sequence, key=_order)
        self._num_waiting += 1

    def _floor(self, account: _Account) -> float:
        """No further below the highest than `max_lag`, so that no two drift further apart."""
        others = [a.counter for a in self._accounts.values() if a.waiting] or [self._last.counter]
        is_running = account.num_live > 1  # beside the one that is about to wait
        return min(min(others), max(others) - self._max_lag) if is_running else min(others)
