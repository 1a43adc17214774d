"""Hosts and networks that are slow, lossy, lying or gone change no token, and nobody waits."""

from __future__ import annotations

import signal
import statistics
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack

import pytest
from hosted_engines import (
    LONG,
    REQUESTS,
    assert_exact,
    draft_request,
    engine_with,
    lookup,
    num_accepted,
    plain,
)
from hosting import IDENTITY, KEYS, PATIENT_S, SECRET, Hosted, close, host
from tiny_models import ids_of, tiny_engine, tiny_model_drafter

from benchmarks.host_process import lookup_host
from benchmarks.host_proxy import FaultProxy, Faults
from deployments.host_client import HostClient
from deployments.host_server import HostServer
from deployments.remote_drafter import LATE, RemoteDrafter
from deployments.sockets import Endpoint
from deployments.wire import Wire
from engine.drafters.drafter import Draft, Drafter, DraftRequest, Outcome, ScoreRequest
from engine.drafters.prompt_lookup import PromptLookupDrafter
from engine.request import Emission

DEADLINE_S = 0.05


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """Closes what a test opens, the latest first, however it ends."""
    with ExitStack() as stack:
        yield stack


def host_in(stack: ExitStack, *drafters: Drafter) -> HostServer:
    server = host(drafters)
    stack.callback(server.close)
    return server


def client_in(stack: ExitStack, *endpoints: Endpoint, timeout_s: float = PATIENT_S) -> HostClient:
    client = HostClient(Wire(KEYS), IDENTITY, timeout_s)
    stack.callback(close, client)
    client.find(endpoints)
    if endpoints:
        assert client.wait(PATIENT_S), "the host does not answer"
    return client


class Stuck(PromptLookupDrafter):
    """Drafts when it is let."""

    def __init__(self, name: str = "lookup") -> None:
        super().__init__(name, 8, 6, 1)
        self.may_draft = threading.Event()

    def draft(self, requests: Sequence[DraftRequest]) -> list[Draft]:
        assert self.may_draft.wait(PATIENT_S)
        return super().draft(requests)


@pytest.mark.parametrize(
    ("faults", "gets_through"),
    [
        (Faults(delay_s=0.002), True),
        (Faults(min_delay_s=0.2, delay_s=0.2), False),
        (Faults(drop=0.3), False),
        (Faults(duplicate=0.5), True),
        (Faults(delay_s=0.004, duplicate=0.3), True),
        (Faults(garbage=0.3), False),
        (Faults(drop=0.1, duplicate=0.2, garbage=0.1, delay_s=0.01), False),
    ],
    ids=["reorder", "delay", "drop", "duplicate", "reorder and duplicate", "garbage", "all"],
)
def test_a_bad_network_changes_no_token(
    stack: ExitStack, faults: Faults, gets_through: bool
) -> None:
    server = host_in(stack, tiny_model_drafter("model", 8))
    proxy = FaultProxy(server.endpoint, KEYS, faults)
    stack.callback(proxy.close)
    timeout_s = PATIENT_S if gets_through else DEADLINE_S
    client = client_in(stack, proxy.endpoint, timeout_s=timeout_s)
    accepted = assert_exact(engine_with(RemoteDrafter("model", 8, client)))
    assert accepted > 0 or not gets_through


class Liar:
    """On a host: too long, not in the vocabulary, for another position, or no number at all."""

    name = "liar"
    is_free = False
    max_draft_length = 4

    def __init__(self, lie: Draft) -> None:
        self._lie = lie

    def draft(self, requests: Sequence[DraftRequest]) -> list[Draft]:
        return [self._lie for _ in requests]

    def score(self, requests: Sequence[ScoreRequest]) -> list[list[Outcome]]:
        return [[Outcome(3, 1, 9)] for _ in requests]

    def forget(self, sequence_ids: Iterable[str]) -> None:
        raise RuntimeError("never")


@pytest.mark.parametrize(
    "lie",
    [
        Draft(1, (5,) * 40),
        Draft(1, (10**6,)),
        Draft(0, (5,)),
        Draft(1, (-5,)),
        Draft(1, ("a",)),  # type: ignore[arg-type]
        None,
    ],
)
def test_a_host_that_lies_is_counted_and_masked(lie: Draft) -> None:
    with Hosted(Liar(lie), timeout_s=DEADLINE_S) as (remote,):
        engine = engine_with(remote)
        assert assert_exact(engine) == 0
        assert engine.counters().num_drafter_failures["liar"] >= 1


def test_a_late_host_costs_one_deadline_until_it_answers() -> None:
    drafter = Stuck()
    with Hosted(drafter, timeout_s=DEADLINE_S) as (remote,):
        assert remote.draft([draft_request([1, 2, 1, 2])]) == [LATE]
        assert remote.is_away
        started_s = time.monotonic()
        for _ in range(20):  # not asked again
            assert remote.draft([draft_request([1, 2, 1, 2])]) == [Draft(4)]
        assert time.monotonic() - started_s < 20 * DEADLINE_S
        drafter.may_draft.set()
        assert remote._client.wait(PATIENT_S)
        (draft,) = remote.draft([draft_request([1, 2, 1, 2, 1])])
        assert draft.tokens == (2, 1, 2, 1)


def test_a_killed_host_changes_no_token_and_a_new_one_is_used(stack: ExitStack) -> None:
    first, second = (host_in(stack, tiny_model_drafter("model", 8)) for _ in range(2))
    client = client_in(stack, first.endpoint, timeout_s=1.0)
    engine = engine_with(RemoteDrafter("model", 8, client))
    for each in LONG:
        engine.submit(each)
    said: dict[str, list[Emission]] = {each.sequence_id: [] for each in LONG}
    accepted = []
    while engine.has_work:
        emissions = engine.step()
        accepted += [num_accepted(engine)] if emissions else []
        for emission in emissions:
            said[emission.sequence_id].append(emission)
        if emissions and len(accepted) == 8:
            first.close()
        if emissions and len(accepted) == 16:
            client.find([second.endpoint])
            assert client.wait(PATIENT_S)
    assert {name: ids_of(emissions) for name, emissions in said.items()} == plain(LONG)
    assert 0 < accepted[7] <= accepted[9] == accepted[15] < accepted[-1]
    assert 1 <= engine.counters().num_drafter_failures["model"] <= 2


def test_a_stopped_process_is_not_waited_for_and_goes_on_later(stack: ExitStack) -> None:
    process, endpoint = stack.enter_context(lookup_host(SECRET, IDENTITY))
    client = client_in(stack, endpoint, timeout_s=DEADLINE_S)
    engine = engine_with(RemoteDrafter("lookup", 8, client))
    process.send_signal(signal.SIGSTOP)
    assert assert_exact(engine, REQUESTS[:2]) == 0
    assert engine.counters().num_drafter_failures["lookup"] == 1
    process.send_signal(signal.SIGCONT)
    assert client.wait(PATIENT_S)
    client.timeout_s = PATIENT_S
    assert assert_exact(engine) > 0


def test_sequences_spread_over_replicas_and_move_when_one_is_gone(stack: ExitStack) -> None:
    servers = [host_in(stack, lookup()) for _ in range(3)]
    client = client_in(stack, *(server.endpoint for server in servers))
    while not all(link.is_ready for link in client._links.values()):
        client.wait(PATIENT_S)
    remote = RemoteDrafter("lookup", 8, client)
    requests = [draft_request([1, 2, 3, 1, 2, 3], name=str(i)) for i in range(60)]
    expected = lookup().draft(requests)
    assert remote.draft(requests) == expected
    shares = [server._service.num_sequences for server in servers]
    assert sum(shares) == 60
    assert min(shares) > 5
    servers[0].close()
    client.timeout_s = DEADLINE_S
    drafts = remote.draft(requests)
    assert drafts.count(LATE) == shares[0]
    client.timeout_s = PATIENT_S
    for link in client._links.values():
        link._owed_since_s -= 10.0  # as if that long had passed
    assert remote.draft(requests) == expected
    assert [server._service.num_sequences for server in servers[1:]] != shares[1:]


def test_without_a_host_nothing_is_waited_for(stack: ExitStack) -> None:
    client = client_in(stack)
    engine = engine_with(RemoteDrafter("lookup", 8, client))
    started_s = time.monotonic()
    assert assert_exact(engine) == 0
    assert time.monotonic() - started_s < PATIENT_S
    assert engine.counters().num_drafter_failures == {"lookup": 0}


def test_a_slow_host_does_not_slow_down_the_median_round(stack: ExitStack) -> None:
    """Rounds beside 200 ms of latency, in pairs with plain rounds."""
    proxy = FaultProxy(
        host_in(stack, lookup()).endpoint, KEYS, Faults(min_delay_s=0.2, delay_s=0.2)
    )
    stack.callback(proxy.close)
    client = client_in(stack, proxy.endpoint, timeout_s=DEADLINE_S)
    slow, alone = engine_with(RemoteDrafter("lookup", 8, client)), tiny_engine()
    ratios = []
    for engine in (slow, alone):
        for each in REQUESTS:
            engine.submit(each)
    while slow.has_work and alone.has_work:
        started_s = time.perf_counter()
        slow.step()
        between_s = time.perf_counter()
        alone.step()
        ratios.append((between_s - started_s) / (time.perf_counter() - between_s))
    assert statistics.median(ratios) < 1.5  # of a tiny model; a round of a real one hides it
