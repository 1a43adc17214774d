"""A recorded line says what the drafters would have done, and the replay reads it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from benchmarks.record_positions import Answer, record
from benchmarks.replay_bounds import Bounds
from benchmarks.replay_prices import make_arms, make_prices
from benchmarks.replay_selectors import MAIN
from benchmarks.replay_simulator import Setting, simulate
from benchmarks.replay_traces import Trace, read_traces
from engine.drafters.drafter import Draft, Drafter, DraftRequest, Outcome, ScoreRequest
from engine.drafters.prompt_lookup import PromptLookupDrafter
from engine.drafters.suffix import SuffixDrafter
from engine.request import SamplingParams


class CountingDrafter:
    """Guesses that the next token is one more than the last."""

    name, is_free, max_draft_length = "model", False, 3

    def draft(self, requests: Sequence[DraftRequest]) -> list[Draft]:
        raise AssertionError("a model is scored, not asked at every position")

    def score(self, requests: Sequence[ScoreRequest]) -> list[list[Outcome]]:
        return [self._score(request) for request in requests]

    def forget(self, sequence_ids: Iterable[str]) -> None:
        pass

    def _score(self, request: ScoreRequest) -> list[Outcome]:
        tokens, outcomes = list(request.tokens), []
        for start in range(request.num_prompt_tokens, len(tokens)):
            length = 0
            for token in tokens[start : start + 3]:
                if token != tokens[start - 1] + length + 1:
                    break
                length += 1
            outcomes.append(Outcome(start, 3, length))
        return outcomes


def drafters() -> list[Drafter]:
    return [PromptLookupDrafter("lookup", 20), SuffixDrafter("suffix", 20), CountingDrafter()]


ANSWER = Answer("a", "count", (1, 2, 3, 4, 9), (1, 2, 3, 4, 9, 7), SamplingParams(temperature=0.0))


def test_a_line_holds_each_drafter_at_each_output_position() -> None:
    line = record(ANSWER, drafters())
    assert line["generated_token_ids"] == [1, 2, 3, 4, 9, 7]
    assert (line["num_prompt_tokens"], line["temperature"]) == (5, 0.0)
    accept_length, offered, matches = (
        line[key] for key in ("accept_length", "offered", "match_length")
    )
    assert isinstance(accept_length, dict)
    assert isinstance(offered, dict)
    assert isinstance(matches, dict)
    assert accept_length["model"] == [1, 4, 3, 2, 1, 1]
    assert offered["model"] == [3] * 6
    assert matches["lookup"] == [0, 0, 0, 3, 4, 5]
    assert accept_length["lookup"] == [1, 1, 1, 3, 2, 1]
    assert list(matches) == ["lookup", "suffix"]
    assert all(len(each) == 6 for each in (*accept_length.values(), *offered.values()))


def test_an_answer_is_known_to_the_next_of_its_domain() -> None:
    pool = drafters()
    first, other = (
        Answer(name, domain, (50,), tuple(range(10, 30)), SamplingParams(temperature=0.0))
        for name, domain in (("a", "count"), ("b", "else"))
    )
    again = Answer("c", "count", (51,), first.ids, first.sampling)
    lines = [record(each, pool) for each in (first, other, again)]
    totals = [np.sum(line["accept_length"]["suffix"]) - 20 for line in lines]  # type: ignore[index]
    assert totals[0] == totals[1] == 0
    assert totals[2] > 20


def test_the_replay_reads_any_number_of_drafters(tmp_path: Path) -> None:
    traces = write_and_read(tmp_path)
    assert (traces[0].models, traces[0].lookups) == (("model",), ("lookup", "suffix"))
    arms = make_arms(traces[0].models, traces[0].lookups)
    prices = make_prices(arms, 8, lookups=traces[0].lookups)
    setting = Setting(arms, prices, 8)
    bounds = Bounds(traces, arms)
    assert max(bounds.rules(prices.table).values()) <= bounds.clairvoyant(prices.table)
    progress = simulate(traces, MAIN["survival"].build(setting, 0), setting)
    assert progress.num_tokens == sum(trace.num_tokens for trace in traces)
    assert progress.tokens_per_s <= bounds.clairvoyant(prices.table)


def write_and_read(folder: Path) -> list[Trace]:
    pool = drafters()
    text = tuple(range(20, 32)) * 4
    asked = [Answer(str(i), "count", (1, 2), text[i:], SamplingParams()) for i in range(6)]
    lines = [json.dumps(record(answer, pool)) for answer in asked]
    (folder / "count.jsonl").write_text("\n".join(lines) + "\n")
    return read_traces(folder)
