"""Whether a selector that learns does as well with drafters on a host as with the same ones here.

The same prompts, seeds and prices, one stream at a time, so that nothing but the way to them
differs: what is verified goes over in messages, and what a selector learns comes rounds later.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice

import numpy as np

from benchmarks.null_host import IDENTITY
from benchmarks.prompts import load_prompts
from benchmarks.spread import print_table
from benchmarks.workbench import GREEDY
from deployments.host_client import HostClient
from deployments.host_server import HostServer
from deployments.host_service import HostService
from deployments.remote_drafter import RemoteDrafter
from deployments.transport_keys import TransportKeys
from deployments.wire import Wire
from engine.config import TargetConfig
from engine.drafters.drafter import Drafter
from engine.drafters.prompt_lookup import PromptLookupDrafter
from engine.drafters.suffix import SuffixDrafter
from engine.engine import Engine
from engine.request import GenerationRequest
from engine.runner import ModelRunner
from engine.text import Text
from policies.arms import USUAL_LENGTHS, Arms, draft_lengths_up_to
from policies.prices import FixedPrices
from policies.survival import SurvivalSelector

LONGEST = 8
DOMAINS = ("edit", "chat")
PATIENT_S = 30.0
CALL, PER_TOKEN, EVALUATION = 0.05, 0.04, 0.01  # of a plain round: prices that no clock changes


class Lookup(PromptLookupDrafter):
    """As drafters on hosts are, not asked before it is chosen."""

    is_free = False

    def __init__(self) -> None:
        super().__init__("lookup", LONGEST, 6, 1)


class Suffix(SuffixDrafter):
    """As drafters on hosts are, not asked before it is chosen."""

    is_free = False

    def __init__(self) -> None:
        super().__init__("suffix", LONGEST)


def measure_quality(
    runner: ModelRunner, text: Text, longest: int, num_prompts: int, num_tokens: int
) -> dict[str, float]:
    """Tokens of a round with the drafters here and on a host, and the one divided by the other."""
    prompts = [p.text for name in DOMAINS for p in islice(load_prompts(name), num_prompts)]
    requests = [
        GenerationRequest(
            f"{i}",
            tuple(text.encode(prompt, add_special_tokens=False)),
            num_tokens,
            GREEDY,
            ignore_eos=True,
        )
        for i, prompt in enumerate(prompts)
    ]

    def tokens_a_round(drafters: Sequence[Drafter]) -> float:
        config = TargetConfig("quality", numerics="fast")
        engine = Engine(runner, text, drafters, config, longest)
        engine.use_selectors(selector_for(drafters), {})
        for request in requests:
            engine.submit(request)
            while engine.has_work:
                engine.step()
        counters = engine.counters()
        return counters.num_emitted_tokens / counters.num_rounds

    here = tokens_a_round([Lookup(), Suffix()])
    with on_a_host([Lookup(), Suffix()]) as remotes:
        remote = tokens_a_round(remotes)
    row = (f"{here:.4f}", f"{remote:.4f}", f"{remote / here:.4f}")
    print_table("tokens of a round", ["here", "on a host", "ratio"], [row])
    return {"accepted_here": here, "accepted_remote": remote, "accepted_ratio": remote / here}


def selector_for(drafters: Sequence[Drafter]) -> SurvivalSelector:
    lengths = draft_lengths_up_to(LONGEST, USUAL_LENGTHS)
    arms = Arms({drafter.name: lengths for drafter in drafters})
    steps = np.arange(LONGEST + 1)
    price = 1.0 + np.where(steps > 0, CALL + PER_TOKEN * steps, 0.0)
    table = np.vstack([np.ones(LONGEST + 1), *[price] * len(drafters)])
    prices = FixedPrices(table, np.array([0.0, *[EVALUATION] * len(drafters)]))
    return SurvivalSelector(arms, prices, np.random.default_rng(0))


@contextmanager
def on_a_host(drafters: Sequence[Drafter]) -> Iterator[list[RemoteDrafter]]:
    keys = TransportKeys(["of this comparison alone, on the loopback"])
    server = HostServer(HostService(drafters, IDENTITY), "127.0.0.1", keys)
    wire = Wire(keys)
    client = HostClient(wire, IDENTITY, PATIENT_S)
    try:
        client.find([server.endpoint])
        assert client.wait(PATIENT_S), "the host does not answer"
        yield [RemoteDrafter(each.name, each.max_draft_length, client) for each in drafters]
    finally:
        client.close()
        wire.close()
        server.close()
