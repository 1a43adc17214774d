"""`python -m benchmarks.draft_ahead`: whether a host should use the time in which targets verify.

The real target on one thread, and the stand-alone models of `models/` on another in a host process,
which drafts ahead or does not: the same prompts in turns, each model on its own domain. What it
gains is the part of a draft that was there already when it was asked for, which takes a draft that
was accepted whole and the target's own token guessed. The last line printed is one JSON object.
QUICK=1: few tokens.
"""

from __future__ import annotations

import json
import secrets
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from itertools import islice

from benchmarks.host_process import host_process, serve_host
from benchmarks.machine import describe_machine, is_quick
from benchmarks.null_host import IDENTITY
from benchmarks.prompts import load_prompts
from benchmarks.spread import print_table
from benchmarks.workbench import GREEDY, MODEL, trained_configs
from deployments.host_client import HostClient
from deployments.host_service import HostService
from deployments.remote_drafter import RemoteDrafter
from deployments.transport_keys import TransportKeys
from deployments.wire import Wire
from engine.build import build_drafter, read_target
from engine.config import TargetConfig
from engine.engine import Engine
from engine.loaded_target import LoadedTarget
from engine.request import GenerationRequest
from policies.fixed import FixedSelector

DOMAINS = {"code-model": "code", "math-model": "math", "chat-model": "chat"}
DRAFT_LENGTHS = (1, 3)
TIMEOUT_S = 60.0
CONFIG = TargetConfig(MODEL, numerics="fast", num_threads=1)


def main() -> int:
    print(describe_machine())
    num_prompts, num_tokens, num_pairs = (1, 16, 1) if is_quick() else (4, 64, 5)
    target = LoadedTarget.load(CONFIG)
    rows, figures = [], {}
    with ExitStack() as stack:
        hosts = {is_on: stack.enter_context(host(is_on)) for is_on in (False, True)}
        for name, domain in DOMAINS.items():
            prompts = [prompt.text for prompt in islice(load_prompts(domain), num_prompts)]
            for length in DRAFT_LENGTHS:
                sides = [(hosts[is_on], name, length) for is_on in (False, True)]
                decode(target, *sides[0], prompts[:1], num_tokens)  # warms up
                ratios = []
                for _ in range(num_pairs):
                    off_s, on_s = (decode(target, *side, prompts, num_tokens) for side in sides)
                    ratios.append(off_s / on_s)
                figures[f"{name}_{length}"] = round(statistics.median(ratios), 4)
                spread = f"{min(ratios):.2f}-{max(ratios):.2f}"
                rows.append((name, f"{length}", f"{statistics.median(ratios):.3f}x", spread))
    heading = ["drafter", "draft length", "tokens a second", "spread"]
    print_table("a host that drafts ahead, against one that does not", heading, rows)
    print(json.dumps(figures))
    return 0


def decode(
    target: LoadedTarget,
    client: HostClient,
    name: str,
    length: int,
    prompts: Sequence[str],
    num_tokens: int,
) -> float:
    """Seconds of all answers, one after the other."""
    drafter = RemoteDrafter(name, length, client)
    longest = target.max_sequence_length
    engine = Engine(target.runner, target.text, [drafter], CONFIG, longest)
    engine.use_selectors(FixedSelector(name, length), {})
    started = time.perf_counter()
    for i, prompt in enumerate(prompts):
        ids = tuple(target.text.encode(prompt, add_special_tokens=False))
        engine.submit(GenerationRequest(f"{i}", ids, num_tokens, GREEDY, ignore_eos=True))
        while engine.has_work:
            engine.step()
    return time.perf_counter() - started


@contextmanager
def host(is_on: bool) -> Iterator[HostClient]:
    """A client of a host process of its own."""
    secret, mode = secrets.token_hex(32), "on" if is_on else "off"
    with host_process(secret, "benchmarks.draft_ahead", mode) as (_, endpoint):
        wire = Wire(TransportKeys([secret]))
        client = HostClient(wire, IDENTITY, TIMEOUT_S)
        try:
            client.find([endpoint])
            assert client.wait(TIMEOUT_S), "the host does not answer"
            yield client
        finally:
            client.close()
            wire.close()


def serve(is_on: bool) -> int:
    """The host process."""
    target = read_target(CONFIG)
    configs = [replace(each, max_draft_length=max(DRAFT_LENGTHS)) for each in trained_configs()]
    drafters = [build_drafter(each, target) for each in configs if each.name in DOMAINS]
    serve_host(HostService(drafters, IDENTITY, drafts_ahead=is_on))
    return 0


if __name__ == "__main__":
    sys.exit(serve(sys.argv[1] == "on") if len(sys.argv) > 1 else main())
