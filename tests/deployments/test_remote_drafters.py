"""Drafters on hosts: the same drafts as here, the same tokens whatever goes wrong, no waiting."""

from __future__ import annotations

import random
import signal
import statistics
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from functools import partial

import pytest
from hosting import IDENTITY, KEYS, PATIENT_S, SECRET, Hosted, OverZmq, Settled, close, host
from tiny_models import ids_of, run_all, tiny_engine, tiny_model_drafter
from tiny_requests import request

from benchmarks.host_process import host_process
from benchmarks.host_proxy import FaultProxy, Faults
from deployments.host_client import HostClient
from deployments.host_server import HostServer
from deployments.remote_drafter import LATE, RemoteDrafter
from deployments.sockets import Endpoint
from deployments.wire import Wire
from engine.drafters.drafter import Draft, Drafter, DraftRequest, Follower, Outcome, ScoreRequest
from engine.drafters.prompt_lookup import PromptLookupDrafter
from engine.engine import Engine
from engine.request import Emission, GenerationRequest, SamplingParams
from policies.fixed import FixedSelector

DEADLINE_S = 0.05
TEMPERATURES = (0.0, 0.7, 1.0) * 2
REQUESTS = tuple(request(i, temperature) for i, temperature in enumerate(TEMPERATURES))
LONG = tuple(request(i, temperature, max_tokens=60) for i, temperature in enumerate(TEMPERATURES))


_plain: dict[str, dict[str, tuple[int, ...]]] = {}


def plain(requests: Sequence[GenerationRequest]) -> dict[str, tuple[int, ...]]:
    """What these requests say without a drafter; asked for once."""
    if repr(requests) not in _plain:
        said = run_all(tiny_engine(), requests)
        _plain[repr(requests)] = {name: ids_of(emissions) for name, emissions in said.items()}
    return _plain[repr(requests)]


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


def engine_with(*drafters: Drafter, draft_length: int = 4) -> Engine:
    engine = tiny_engine(drafters)
    engine.use_selectors(FixedSelector(drafters[0].name, draft_length), {})
    return engine


def assert_exact(engine: Engine, requests: Sequence[GenerationRequest] = REQUESTS) -> int:
    """Token for token what plain decoding says; gives how many drafted tokens were accepted."""
    before = num_accepted(engine)
    found = run_all(engine, requests)
    assert {name: ids_of(emissions) for name, emissions in found.items()} == plain(requests)
    return num_accepted(engine) - before


def num_accepted(engine: Engine) -> int:
    return sum(use.num_accepted_tokens for use in engine.counters().per_drafter.values())


def draft_request(tokens: Sequence[int], draft_length: int = 4, name: str = "a") -> DraftRequest:
    return DraftRequest(name, "tenant", tokens, 1, SamplingParams(temperature=0.0), draft_length)


def score_request(tokens: Sequence[int], finished: bool = False, name: str = "a") -> ScoreRequest:
    return ScoreRequest(name, "tenant", tokens, 1, SamplingParams(temperature=0.0), finished)


class Stuck(PromptLookupDrafter):
    """Drafts when it is let."""

    def __init__(self, name: str = "lookup") -> None:
        super().__init__(name, 8, 6, 1)
        self.may_draft = threading.Event()

    def draft(self, requests: Sequence[DraftRequest]) -> list[Draft]:
        assert self.may_draft.wait(PATIENT_S)
        return super().draft(requests)


def lookup(name: str = "lookup") -> PromptLookupDrafter:
    return PromptLookupDrafter(name, 8, 6, 1)


@pytest.mark.parametrize("name", ["lookup", "model"])
def test_a_host_accepts_exactly_what_the_drafter_here_would(name: str) -> None:
    makers: dict[str, Callable[[], Drafter]] = {
        "lookup": lookup,
        "model": partial(tiny_model_drafter, "model", 8),
    }
    here, there = makers[name](), makers[name]()
    engine = engine_with(here)
    expected = [assert_exact(engine, [each]) for each in REQUESTS[3:]]
    assert sum(expected) > 0
    with Hosted(there) as (remote,):
        engine = engine_with(remote)
        assert [assert_exact(engine, [each]) for each in REQUESTS[3:]] == expected
        assert assert_exact(engine) > 0  # together they may take turns, and draft less often
        assert engine.counters().num_drafter_failures == {name: 0}


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


class Unscored(PromptLookupDrafter):
    """Scores when it is let."""

    def __init__(self) -> None:
        super().__init__("lookup", 8, 6, 1)
        self.may_score = threading.Event()

    def score(self, requests: Sequence[ScoreRequest]) -> list[list[Outcome]]:
        assert self.may_score.wait(PATIENT_S)
        return super().score(requests)


def test_the_score_of_a_finished_sequence_is_not_waited_for_and_comes_later() -> None:
    drafter, tokens = Unscored(), [1, 2, 3, 1, 2, 3]
    with Hosted(drafter) as (remote,):
        finished = score_request(tokens, finished=True)
        assert remote.score([finished]) == [[]]
        assert remote.score([finished]) == [[]]
        drafter.may_score.set()
        (question, _), *others = remote._scoring["a"]
        assert not others  # the end is asked about once
        while not question.is_over:
            remote._client.wait_for([question], PATIENT_S)
        (outcomes,) = remote.score([finished])
        assert [outcome.base_length for outcome in outcomes] == list(range(1, 6))
        assert remote.score([finished]) == [[]]
        remote.forget(["a"])
        assert not remote._scoring
        assert not remote._finished


def test_a_late_score_ends_no_other_question_and_leaves_no_debt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("deployments.host_client.SCORE_TIMEOUT_S", 0.0)
    drafter, tokens = Unscored(), [1, 2, 3, 1, 2, 3]
    with Hosted(drafter, lookup("other")) as (remote, other):
        assert remote.score([score_request(tokens)]) == [[]]
        ((question, _),) = remote._scoring["a"]
        other.ask([draft_request(tokens)])
        remote._client.read()
        assert question.is_over
        assert not other.is_away
        drafter.may_score.set()
        while not (drafts := other.take(PATIENT_S)):
            pass
        assert drafts["a"].tokens == (1, 2, 3, 1)


def test_a_long_prompt_on_a_host_delays_nobody_elses_draft() -> None:
    """The model reads it in parts, between which others are answered."""
    rng, model = random.Random(5), tiny_model_drafter("model", 4, max_length=5000, num_blocks=2000)
    tokens = [rng.randrange(3, 40) for _ in range(4000)]
    expected = tiny_model_drafter("model", 4, max_length=5000, num_blocks=2000).draft(
        [draft_request(tokens)]
    )
    with Hosted(model) as (remote,):
        remote.follow([score_request(tokens, name="a")])
        assert remote.draft([draft_request(tokens)]) == [Draft(4000)]  # not read yet
        assert remote.draft([draft_request(tokens[:20], name="b")])[0].tokens
        assert remote.draft([draft_request(tokens)]) == [Draft(4000)]
        while not (drafts := remote.draft([draft_request(tokens)]))[0].tokens:
            pass
        assert drafts == expected


def test_what_was_sent_ahead_is_read_before_it_is_asked_for() -> None:
    drafter = lookup()
    with Hosted(drafter, kind=Settled) as (remote,):
        tokens = [1, 2]
        for token in (3, 1, 2, 3, 1, 2, 3):
            tokens.append(token)
            remote.follow([score_request(tokens)])
        before = remote._client.num_bytes
        (draft,) = remote.draft([draft_request(tokens)])
        assert draft.tokens == (1, 2, 3, 1)
        assert remote._client.num_bytes - before < 60
        (outcomes,) = remote.score([score_request(tokens, finished=True)])
        assert [outcome.base_length for outcome in outcomes] == list(range(1, 9))


def test_a_model_on_a_host_drafts_and_scores_as_the_one_here() -> None:
    rng, make = random.Random(3), partial(tiny_model_drafter, "model", 4)
    with closing(OverZmq(make)) as over_zmq:
        here, there = make(), over_zmq()
        for number in range(3):
            tokens = [rng.randrange(3, 40) for _ in range(rng.randint(1, 20))]
            for end in range(1, 40, rng.randint(1, 5)):
                tokens += [rng.randrange(3, 40) for _ in range(end - len(tokens))]
                asked = [draft_request(tokens[:end], rng.randint(1, 6), str(number))]
                assert there.draft(asked) == here.draft(asked)
                scored = [score_request(tokens[:end], name=str(number))]
                assert there.score(scored) == here.score(scored)
            for drafter in (here, there):
                drafter.forget([str(number)])


def test_a_drafter_unchosen_for_long_drafts_as_one_always_chosen() -> None:
    """So it accepts as well: after 500 tokens that it only read, its next drafts are the same."""
    tokens = [(i * i) % 13 for i in range(560)]
    model = partial(tiny_model_drafter, "model", 4, max_length=600)
    with Hosted(model(), lookup()) as (unchosen, _), Hosted(model()) as (always,):
        for end in range(1, 501, 9):
            unchosen.follow([score_request(tokens[:end])])
            always.draft([draft_request(tokens[:end])])
        for end in range(502, 560, 5):
            asked = [draft_request(tokens[:end])]
            assert unchosen.draft(asked) == always.draft(asked)


def test_a_long_sequence_goes_over_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deployments.host_client.MAX_MESSAGE_TOKENS", 100)
    tokens = [i % 7 for i in range(5000)]
    request = DraftRequest("a", "tenant", tokens, 3000, SamplingParams(temperature=0.0), 4)
    with Hosted(lookup()) as (remote,):
        assert remote.draft([request]) == lookup().draft([request])


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
    process, endpoint = stack.enter_context(host_process(SECRET, IDENTITY))
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


def test_a_remote_drafter_follows_and_one_here_does_not() -> None:
    with Hosted(lookup()) as (remote,):
        assert isinstance(remote, Follower)
    assert not isinstance(lookup(), Follower)


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
