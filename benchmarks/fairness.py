"""`python -m benchmarks.fairness`: a tenant beside one that sends twenty times as much.

The real model in this process, for 32 sequences at once: the victim keeps 16 requests going, the
greedy tenant 320. The victim's share of the tokens, against the same victim beside an equal, and
against a queue that does not tell tenants apart; and the time to the first token of one request at
a time, alone and beside 80. Ratios are of one run. The last line printed is one JSON object; the
exit status is 1 if the victim gets less than 95 % of its fair share, or waits more than twice as
long. QUICK=1: fewer answers.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import cycle, islice

from benchmarks.machine import describe_machine, is_quick
from benchmarks.spread import print_table
from benchmarks.varied_prompts import varied_prompts
from benchmarks.workbench import MODEL
from engine.config import TargetConfig
from engine.engine import Engine
from engine.loaded_target import LoadedTarget
from engine.request import GenerationRequest, SamplingParams

NUM_VICTIMS = 16
FACTOR = 20
MAX_TOKENS = 24
MIN_SHARE = 0.95
MAX_FIRST_TOKEN = 2.0


@dataclass(slots=True)
class Findings:
    """Tokens by who sent them, while both had requests, and the victim's first-token times."""

    num_tokens: Counter[str] = field(default_factory=Counter)
    first_token_s: list[float] = field(default_factory=list)

    @property
    def victim_share(self) -> float:
        return self.num_tokens["victim"] / sum(self.num_tokens.values())


class Bench:
    def __init__(self) -> None:
        config = TargetConfig(MODEL, max_num_sequences=32, max_batch_tokens=256)
        self._target = LoadedTarget.load(config)
        text = self._target.text
        self._prompts = cycle(
            [text.encode(prompt, add_special_tokens=False) for prompt in varied_prompts(200, 7)]
        )

    def run(
        self, senders: Mapping[str, int], tenants: Mapping[str, str], num_answers: int
    ) -> Findings:
        """Until the victim has so many answers. `senders`: how many requests each keeps going."""
        target = self._target
        engine = Engine(target.runner, target.text, [], target.config, target.max_sequence_length)
        findings, sender_of, sent_s = Findings(), dict[str, str](), dict[str, float]()
        number = num_done = 0
        while num_done < num_answers:
            for sender, most in senders.items():
                for _ in range(most - sum(each == sender for each in sender_of.values())):
                    request = self._request(f"{number}", tenants[sender])
                    sender_of[request.sequence_id] = sender
                    sent_s[request.sequence_id] = time.perf_counter()
                    engine.submit(request)
                    number += 1
            for emission in engine.step():
                name = emission.sequence_id
                sender = sender_of[name]
                findings.num_tokens[sender] += len(emission.token_ids)
                if sender == "victim" and name in sent_s:
                    findings.first_token_s.append(time.perf_counter() - sent_s.pop(name))
                if emission.finish_reason is not None:
                    num_done += sender == "victim"
                    del sender_of[name]
        for name in sender_of:
            engine.cancel(name)
        return findings

    def _request(self, name: str, tenant: str) -> GenerationRequest:
        (prompt,) = islice(self._prompts, 1)
        sampling = SamplingParams(temperature=0.0)
        return GenerationRequest(
            name, tuple(prompt), MAX_TOKENS, sampling, tenant=tenant, ignore_eos=True
        )


def main() -> int:
    print(describe_machine())
    num_answers = 48 if is_quick() else 400
    bench = Bench()
    apart = {"victim": "victim", "greedy": "greedy"}
    as_one = {"victim": "all", "greedy": "all"}
    equal = {"victim": NUM_VICTIMS, "greedy": NUM_VICTIMS}
    more = {"victim": NUM_VICTIMS, "greedy": FACTOR * NUM_VICTIMS}
    found = {
        "beside an equal": bench.run(equal, apart, num_answers),
        "beside a greedy one": bench.run(more, apart, num_answers),
        "the same, first come first served": bench.run(more, as_one, num_answers // 6),
        "one request, alone": bench.run({"victim": 1}, apart, num_answers // 6),
        "one request beside the greedy": bench.run(
            {"victim": 1, "greedy": 4 * FACTOR}, apart, num_answers // 6
        ),
    }
    rows = [
        (name, f"{each.victim_share:.1%}", f"{statistics.median(each.first_token_s):.3f}")
        for name, each in found.items()
    ]
    print_table("a victim's tokens and median first-token time", ["", "share", "s"], rows)
    fair = found["beside an equal"].victim_share
    kept = found["beside a greedy one"].victim_share / fair
    alone, beside = (
        statistics.median(found[name].first_token_s)
        for name in ("one request, alone", "one request beside the greedy")
    )
    figures = {"fair_share": fair, "share_kept": kept, "first_token_ratio": beside / alone}
    print(json.dumps({name: round(value, 4) for name, value in figures.items()}))
    return 0 if kept >= MIN_SHARE and beside <= MAX_FIRST_TOKEN * alone else 1


if __name__ == "__main__":
    sys.exit(main())
