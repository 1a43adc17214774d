"""The replay counts what the traces say: by hand, and bounds in their order."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from benchmarks import plots, replay
from benchmarks.replay_bounds import Bounds
from benchmarks.replay_curve import NUM_PARTS, against_rule
from benchmarks.replay_prices import make_arms, make_prices
from benchmarks.replay_selectors import ABLATIONS, LEARNERS, MAIN
from benchmarks.replay_simulator import Setting, simulate
from benchmarks.replay_traces import LOOKUP, MODEL, Trace, balanced, read_traces
from policies.arms import Arms
from policies.fixed import FixedSelector
from policies.prices import FixedPrices
from policies.rule import RuleSelector
from policies.selector import Decision

ARMS = make_arms()


def make_trace(seed: int, num_tokens: int = 60, domain: str = "code") -> Trace:
    """Whose drafts agree with each other: what is accepted at j was one more at j - 1."""
    generator = np.random.default_rng(seed)
    hits = {
        name: generator.random(num_tokens) < rate for name, rate in ((MODEL, 0.7), (LOOKUP, 0.5))
    }
    accepted = {name: _runs(each.tolist()) for name, each in hits.items()}
    offered = {MODEL: np.full(num_tokens, 20), LOOKUP: np.where(hits[LOOKUP], 20, 0)}
    matches = {LOOKUP: np.where(hits[LOOKUP], 3, 0)}
    streaks = {name: np.zeros(num_tokens, np.int64) for name in hits}
    return Trace(domain, num_tokens, accepted, offered, matches, streaks)


def _runs(hits: Sequence[bool]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    runs = np.zeros(len(hits) + 1, np.int64)
    for j in range(len(hits) - 1, -1, -1):
        runs[j] = runs[j + 1] + 1 if hits[j] else 0
    return runs[:-1]


TRACES = [make_trace(seed) for seed in range(6)]


def setting(batch: int) -> Setting:
    return Setting(ARMS, make_prices(ARMS, batch), batch)


def test_a_request_is_counted_by_hand() -> None:
    arms = Arms({MODEL: (2,), LOOKUP: (2,)})
    prices = FixedPrices(np.tile([1.0, 1.5, 2.0], (3, 1)), np.zeros(3))
    model = np.array([2, 1, 0, 3, 2, 1])
    nothing = np.zeros(6, np.int64)
    trace = Trace(
        "code",
        6,
        {MODEL: model, LOOKUP: nothing},
        {MODEL: np.full(6, 20), LOOKUP: nothing},
        {LOOKUP: nothing},
        {MODEL: nothing, LOOKUP: nothing},
    )
    progress = simulate([trace], FixedSelector(MODEL, 2), Setting(arms, prices, 1))
    assert (progress.num_tokens, progress.seconds) == (6, 4.0)
    plain = simulate([trace], FixedSelector(), Setting(arms, prices, 1))
    assert (plain.num_tokens, plain.seconds) == (6, 6.0)
    assert Bounds([trace], arms).fixed(prices.table)[MODEL, 2] == 6 / 4


@pytest.mark.parametrize("batch", [1, 4, 32])
def test_simulated_arms_and_rules_reach_exactly_what_the_bounds_say(batch: int) -> None:
    bounds, prices = Bounds(TRACES, ARMS), make_prices(ARMS, batch).table
    fixed = bounds.fixed(prices)
    for name, length in ((MODEL, 4), (LOOKUP, 8)):
        progress = simulate(TRACES, FixedSelector(name, length), setting(batch))
        assert progress.tokens_per_s == pytest.approx(fixed[name, length])
    rule = RuleSelector([LOOKUP], 20, Decision(MODEL, 4))
    key = (20, ARMS.keys.index((MODEL, 4)))
    speed = simulate(TRACES, rule, setting(batch)).tokens_per_s
    assert speed == pytest.approx(bounds.rules(prices)[key])


@pytest.mark.parametrize("batch", [1, 8, 128])
def test_nothing_beats_foresight_and_hindsight_beats_every_arm(batch: int) -> None:
    bounds, prices = Bounds(TRACES, ARMS), make_prices(ARMS, batch).table
    best = max(bounds.fixed(prices).values())
    assert best <= bounds.hindsight(prices) <= bounds.clairvoyant(prices)
    assert bounds.hindsight_whole(prices) <= bounds.hindsight(prices)
    assert max(bounds.rules(prices).values()) <= bounds.clairvoyant(prices)


@pytest.mark.parametrize("name", [*MAIN, *LEARNERS, *ABLATIONS])
def test_every_candidate_decodes_every_token(name: str) -> None:
    candidate = {**MAIN, **LEARNERS, **ABLATIONS}[name]
    where = candidate.setting(setting(4))
    progress = simulate(TRACES, candidate.build(where, 0), where)
    assert progress.num_tokens == sum(trace.num_tokens for trace in TRACES)
    bounds = Bounds(TRACES, ARMS)
    assert progress.tokens_per_s <= bounds.clairvoyant(make_prices(ARMS, 4).table)


def test_the_curve_is_the_whole_ratio_in_parts() -> None:
    ratios = against_rule(TRACES, setting(4), seed=0)
    assert len(ratios) == NUM_PARTS + 1
    assert min(ratios[:-1]) <= ratios[-1] <= max(ratios[:-1])


def test_a_balanced_sample_has_as_many_of_each_domain() -> None:
    traces = [make_trace(i, domain="code") for i in range(9)] + [make_trace(9, domain="math")] * 3
    sample = balanced(traces, 3, seed=0)
    assert sorted(trace.domain for trace in sample) == ["code"] * 3 + ["math"] * 3
    assert [id(t) for t in sample] == [id(t) for t in balanced(traces, 3, seed=0)]
    assert [id(t) for t in sample] != [id(t) for t in balanced(traces, 3, seed=1)]


def record(**changes: object) -> str:
    return json.dumps(
        {
            "id": "0",
            "domain": "code",
            "num_prompt_tokens": 3,
            "counterfactual": True,
            "generated_token_ids": [5, 6, 7, 8],
            "accept_length": {"eagle": [2, 1, 2, 1], "ngram": [1, 3, 2, 1, 1]},
            "ngram_match_order": [0, 3, 5, 0],
            "ngram_offered": [0, 2, 9, 0],
        }
        | changes
    )


def test_a_line_is_read_as_it_was_recorded(tmp_path: Path) -> None:
    (tmp_path / "code.jsonl").write_text(record() + "\n" + record(counterfactual=False) + "\n")
    (trace,) = read_traces(tmp_path)
    assert trace.num_tokens == 4
    assert trace.accepted[MODEL].tolist() == [1, 0, 1, 0]
    assert trace.accepted[LOOKUP].tolist() == [0, 2, 1, 0]
    assert trace.offered[LOOKUP].tolist() == [0, 2, 9, 0]
    assert trace.streaks[MODEL].tolist() == [0, 1, 0, 1]
    assert trace.streaks[LOOKUP].tolist() == [0, 0, 1, 2]


def test_the_json_has_the_promised_keys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "code.jsonl").write_text(record() + "\n")
    monkeypatch.setenv("TRACES", str(tmp_path))
    monkeypatch.setenv("QUICK", "1")
    monkeypatch.setattr(plots, "FOLDER", tmp_path / "build")
    assert replay.main() == 0
    assert (tmp_path / "build" / "replay.png").is_file()
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert list(figures) == ["b1", "b8", "b32", "b128"]
    names = "plain best_fixed banditspec_released ucbspec exp3spec hedge normalhedge rule_tuned "
    names += "rule_b1 survival hindsight hindsight_whole clairvoyant"
    assert all(set(names.split()) == set(row) for row in figures.values())


def test_without_traces_it_says_why_it_does_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TRACES", str(tmp_path / "nowhere"))
    assert replay.main() == 0
    assert "skipped: no counterfactual traces" in capsys.readouterr().out
