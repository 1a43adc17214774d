"""What is gained where a drafter takes its time elsewhere: the same one here, and on a host.

Here every round waits for it; with a host the target verifies other sequences meanwhile, or waits
where that is cheaper.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from itertools import islice

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
from engine.drafters.drafter import Draft, Drafter, DraftRequest
from engine.drafters.prompt_lookup import PromptLookupDrafter
from engine.engine import Engine
from engine.request import GenerationRequest
from engine.runner import ModelRunner
from engine.text import Text
from policies.fixed import FixedSelector

NAME = "slow"
LONGEST = 4
NUM_STREAMS = 8
DRAFT_S = (0.01, 0.05, 0.2)
PATIENT_S = 10.0


class SlowDrafter(PromptLookupDrafter):
    """As on a device of its own: it takes `seconds` for a batch, and no time of this processor."""

    is_free = False

    def __init__(self, seconds: float) -> None:
        super().__init__(NAME, LONGEST, 6, 1)
        self._seconds = seconds

    def draft(self, requests: Sequence[DraftRequest]) -> list[Draft]:
        time.sleep(self._seconds)
        return super().draft(requests)


def measure_waves(
    runner: ModelRunner, text: Text, longest: int, num_tokens: int, num_pairs: int, secret: str
) -> dict[str, float]:
    """Tokens a second with a host, divided by those with the drafter here; in pairs."""
    config = TargetConfig("waves", numerics="fast")
    prompts = [prompt.text for prompt in islice(load_prompts("edit"), NUM_STREAMS)]
    ids = [tuple(text.encode(prompt, add_special_tokens=False)) for prompt in prompts]

    def seconds_of(drafter: Drafter) -> float:
        engine = Engine(runner, text, [drafter], config, longest)
        engine.use_selectors(FixedSelector(NAME, LONGEST), {})
        for i, prompt_ids in enumerate(ids):
            engine.submit(GenerationRequest(f"{i}", prompt_ids, num_tokens, GREEDY))
        started = time.perf_counter()
        while engine.has_work:
            engine.step()
        return time.perf_counter() - started

    keys = TransportKeys([secret])
    figures: dict[str, float] = {}
    rows = []
    for draft_s in DRAFT_S:
        server = HostServer(HostService([SlowDrafter(draft_s)], IDENTITY), "127.0.0.1", keys)
        wire = Wire(keys)
        client = HostClient(wire, IDENTITY, PATIENT_S)
        client.find([server.endpoint])
        assert client.wait(PATIENT_S), "the host does not answer"
        ratios = [
            seconds_of(SlowDrafter(draft_s)) / seconds_of(RemoteDrafter(NAME, LONGEST, client))
            for _ in range(num_pairs)
        ]
        client.close()
        wire.close()
        server.close()
        figures[f"waves_{draft_s * 1e3:.0f}_ms"] = statistics.median(ratios)
        spread = f"{min(ratios):.2f}-{max(ratios):.2f}"
        rows.append((f"{draft_s * 1e3:.0f} ms", f"{statistics.median(ratios):.2f}x ({spread})"))
    title = f"{NUM_STREAMS} streams, a drafter on a host against the same one here"
    print_table(title, ["a draft takes", "tokens a second"], rows)
    return figures
