"""The comparison with peers: what is asked, what reports say, what is taken of them."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from benchmarks.peers.__main__ import SYSTEMS, UnknownSystemError, chosen
from benchmarks.peers.answers import Answer, Effort, Figures, figures, median_figures
from benchmarks.peers.client import metric, note, spread_rounds
from benchmarks.peers.pictures import bars
from benchmarks.peers.process_tree import Meter, StartError, started, wait_until
from benchmarks.peers.report import (
    BEGIN,
    END,
    MEANINGS,
    Conditions,
    document,
    markdown,
    ratio_table,
    spliced,
)
from benchmarks.peers.results import Compared, Results, hindsight, ratios
from benchmarks.peers.roofline import Roofline
from benchmarks.peers.worker import cell_of
from benchmarks.peers.workload import FULL, QUICK, Job, arrivals_s, cells, common_tokens
from benchmarks.prompts import DOMAINS

JOBS = {d: [Job(d, (i, n), 5 + i) for i in range(12)] for n, d in enumerate(DOMAINS)}
ANSWER = Answer("chat", 1.0, 0.5, 2.5, 11, 5, "text")
FIGURES = Figures(10.0, 0.5, 0.2, 2.0, 100.0, 500.0, 0)
ROOFLINE = Roofline(100, 4e4, 4e6)
CONDITIONS = Conditions("machine: a", ROOFLINE, 2, 64, 3)


def test_cells_ask_for_distinct_prompts_of_all_domains() -> None:
    found = {cell.name: cell for cell in cells(JOBS, FULL)}
    assert list(found) == ["1", "8", "32", "8/code", "8/math", "8/chat", "8/edit", "open"]
    for cell in found.values():
        assert len(set(cell.jobs)) == len(cell.jobs)
    mixed = found["1"].jobs
    assert [job.domain for job in mixed] == list(DOMAINS) * 2
    assert {job.domain for job in found["8/math"].jobs} == {"math"}
    assert [cell.name for cell in cells(JOBS, QUICK)] == ["1", "8"]


def test_arrivals_are_a_poisson_process_of_the_rate() -> None:
    times = arrivals_s(4000, 0.5, seed=1)
    gaps = [after - before for before, after in zip((0.0, *times), times, strict=False)]
    mean = sum(gaps) / len(gaps)
    assert mean == pytest.approx(2.0, rel=0.05)
    assert sum((gap - mean) ** 2 for gap in gaps) / len(gaps) == pytest.approx(4.0, rel=0.15)
    assert times == arrivals_s(4000, 0.5, seed=1)


@pytest.mark.parametrize(
    ("text", "number"), [("Hello, you", 3), ("Hello there", 1), ("", 0), ("Hello, you and me", 3)]
)
def test_equal_tokens_are_counted_until_the_first_that_differs(text: str, number: int) -> None:
    assert common_tokens(text, ["Hello", ",", " you"]) == number


def test_a_cell_comes_back_whole_from_a_worker_s_input() -> None:
    for cell in cells(JOBS, FULL):
        assert cell_of(json.loads(json.dumps(asdict(cell)))) == cell


def test_figures_count_what_was_answered_until_the_last_end() -> None:
    late = replace(ANSWER, started_s=4.0, total_s=1.0, first_s=0.25, num_rounds=10)
    failed = replace(ANSWER, started_s=0.0, failure="cut")
    found = figures([ANSWER, late, failed], Effort(11.0, 300.0))
    assert found is not None
    assert found.tokens_per_s == pytest.approx(22 / 5)
    assert found.first_s == pytest.approx(0.375)
    assert found.per_token_s == pytest.approx((0.2 + 0.075) / 2)
    assert found.acceptance_length == pytest.approx(22 / 15)
    assert found.core_s_per_million == pytest.approx(5e5)
    assert (found.peak_rss_mb, found.num_failed) == (300.0, 1)
    assert figures([failed], Effort(1.0, 1.0)) is None


def test_a_system_that_tells_no_rounds_has_no_acceptance_length() -> None:
    found = figures([ANSWER, replace(ANSWER, num_rounds=0)], Effort(1.0, 1.0))
    assert found is not None
    assert found.acceptance_length is None


def test_medians_are_of_each_figure() -> None:
    rounds = [replace(FIGURES, tokens_per_s=speed, num_failed=1) for speed in (1.0, 9.0, 5.0)]
    rounds[0] = replace(rounds[0], acceptance_length=None, peak_rss_mb=900.0)
    found = median_figures(rounds)
    assert (found.tokens_per_s, found.acceptance_length) == (5.0, 2.0)
    assert (found.peak_rss_mb, found.num_failed) == (900.0, 3)


def test_rounds_are_read_from_what_each_server_tells() -> None:
    ours, llama, vllm = Answer("chat"), Answer("chat"), Answer("chat")
    note(ours, {"usage": {"completion_tokens": 20, "speculation": {"num_rounds": 8}}})
    note(llama, {"usage": None, "timings": {"predicted_n": 20, "draft_n_accepted": 12}})
    note(vllm, {"choices": [], "usage": {"completion_tokens": 20}})
    assert [(a.num_tokens, a.num_rounds) for a in (ours, llama, vllm)] == [
        (20, 8),
        (20, 8),
        (20, 0),
    ]
    both = [vllm, replace(vllm), replace(vllm, failure="cut")]
    spread_rounds(both, 25)
    assert sum(answer.num_rounds for answer in both[:2]) == 15


def test_a_metric_is_summed_over_its_labels_and_no_other() -> None:
    page = '# HELP a_total b\na_total{x="1"} 2.0\na_total{x="2"} 3.0\na_total_more 7\na_total 1\n'
    assert metric(page, "a_total") == 6.0
    assert metric(page, "b_total") == 0.0


def test_only_takes_known_names_in_the_usual_order() -> None:
    assert chosen("") == list(SYSTEMS)
    assert [system.name for system in chosen("llama, hedgerow")] == ["hedgerow", "llama"]
    with pytest.raises(UnknownSystemError, match=r"ONLY: sglang: no such system; there are \['hed"):
        chosen("vllm sglang")


@pytest.mark.parametrize(
    ("system", "test"), [("hedgerow-bfloat16", "packs"), ("hedgerow-float16", "can_widen")]
)
def test_what_this_processor_cannot_do_is_left_out(
    monkeypatch: pytest.MonkeyPatch, system: str, test: str
) -> None:
    (found,) = chosen(system)
    monkeypatch.setattr(f"benchmarks.peers.hedgerow.{test}", lambda *_: True)
    assert found.missing() is None
    monkeypatch.setattr(f"benchmarks.peers.hedgerow.{test}", lambda *_: False)
    assert "this processor" in str(found.missing())


def results(speeds: dict[str, tuple[float, ...]]) -> Results:
    found = Results()
    for key, by_round in speeds.items():
        for number, speed in enumerate(by_round):
            found.add(key, number, replace(FIGURES, tokens_per_s=speed))
    return found


SPEEDS: dict[str, tuple[float, ...]] = {
    "hedgerow/plain/8": (90.0, 45.0, 90.0),
    "hedgerow/survival/8": (120.0, 60.0, 120.0),
    "hedgerow-bare/plain/8": (95.0, 50.0, 100.0),
    "hedgerow-bare/survival/8": (150.0, 75.0, 150.0),
    "hedgerow-engine/plain/8": (100.0, 50.0, 100.0),
    "hedgerow-engine/survival/8": (150.0, 75.0, 150.0),
    "hedgerow-engine/survival/32": (95.0, 95.0, 95.0),
    "hedgerow-engine/plain/32": (100.0, 100.0, 100.0),
    "hedgerow-engine/lookup 5/8": (120.0, 60.0, 120.0),
    "hedgerow-engine/suffix 5/8": (100.0, 50.0, 100.0),
    "hedgerow-float16/plain/8": (160.0, 80.0, 160.0),
    "hedgerow-float16/survival/8": (180.0, 90.0, 180.0),
    "vllm/plain/8": (80.0, 40.0, 80.0),
    "vllm/ngram/8": (60.0, 30.0, 60.0),
    "llama/plain/8": (50.0, 25.0, 50.0),
    "llama/ngram-simple/8": (96.0, 48.0, 96.0),
    "llama-q4/plain/8": (240.0, 120.0, 240.0),
}
COMPARED = Compared(
    {"vllm": ["plain", "ngram"], "llama": ["plain", "ngram-simple"]},
    ["plain"], ["lookup 5", "suffix 5"], [10, 30],
)  # fmt: skip


def test_ratios_are_against_the_fastest_in_each_round() -> None:
    found = ratios(results(SPEEDS), COMPARED)
    assert found["plain_vs_peer/8"] == pytest.approx(90 / 80)
    assert found["best_vs_peer/8"] == pytest.approx(120 / 96)
    assert found["best_vs_quantised/8"] == pytest.approx(0.5)
    assert found["engine_best_vs_peer"] == pytest.approx(150 / 96)
    assert found["float16_best_vs_quantised"] == pytest.approx(180 / 240)
    assert found["float16_vs_plain/8"] == pytest.approx(180 / 160)
    assert {name.partition("/")[0] for name in found} <= set(MEANINGS)
    assert found["adaptive_vs_fixed"] == pytest.approx(150 / 120)
    assert found["vs_plain/8"] == pytest.approx(1.5)
    assert found["vs_plain"] == pytest.approx(0.95)  # the worst load
    assert found["http_overhead/plain"] == pytest.approx(0.1)
    assert found["http_overhead"] == pytest.approx(0.2)
    assert not any(name.startswith(("vs_hindsight", "plain_vs_peer/1")) for name in found)


def test_hindsight_chooses_by_the_other_rounds() -> None:
    found = Results()
    found.seconds["a"] = {0: [1.0, 4.0], 1: [1.0, 4.0], 2: [9.0, 4.0]}
    found.seconds["b"] = {0: [2.0, 2.0], 1: [2.0, 2.0], 2: [2.0, 2.0]}
    by_round = hindsight(found, ["a", "b", "c"], [10, 30])
    assert by_round == {0: 40 / 4, 1: 40 / 4, 2: 40 / 11}
    assert hindsight(Results(), ["a"], [1]) == {}


def test_the_report_has_a_row_for_all_that_ran_and_says_what_did_not() -> None:
    found = results(SPEEDS)
    found.add_equal("vllm/plain/8", 30, 40)
    found.left_out["transformers"] = "gone"
    text = markdown(found, list(SYSTEMS), CONDITIONS)
    (row,) = [line for line in text.splitlines() if line.startswith("| vllm plain |")]
    assert row == "| vllm plain | 80.00 (40.00-80.00) | 500 | 200.0 | 2.00 | 100 | 500 | 75.0% |"
    assert "- left out: `transformers`: gone" in text
    assert text.index("Mixed prompts, 8 at a time") < text.index("Mixed prompts, 32 at a time")
    assert "| `survival` against the best fixed arm, both in the engine | 1.25 | 8: 1.25 |" in (
        ratio_table(ratios(found, COMPARED))
    )


def test_the_json_has_the_median_speeds_beside_the_ratios() -> None:
    found = results(SPEEDS)
    flat = document(found, ratios(found, COMPARED))
    assert flat["vllm/plain/8"] == 80.0
    assert flat["best_vs_peer"] == 1.25
    assert set(SPEEDS) < set(flat)


def test_pictures_show_the_best_of_the_fixed_arms_alone() -> None:
    shown = bars(results(SPEEDS), list(SYSTEMS), "8")
    assert "hedgerow-engine lookup 5" in shown
    assert "hedgerow-engine suffix 5" not in shown
    assert shown["vllm plain"] == 80.0


def test_a_page_keeps_what_is_around_its_measured_part() -> None:
    page = f"above\n{BEGIN}\nold\n{END}\nbelow\n"
    once = spliced(page, "new")
    assert once == f"above\n{BEGIN}\n\nnew\n\n{END}\nbelow\n"
    assert spliced(once, "new") == once
    with pytest.raises(ValueError, match="lacks"):
        spliced("above", "new")


def test_the_roofline_is_the_lower_of_memory_and_arithmetic() -> None:
    assert ROOFLINE.bytes_per_step == 400
    assert ROOFLINE.tokens_per_s(1) == 100.0
    assert ROOFLINE.tokens_per_s(1000) == 4e6 / 200


def test_a_process_that_ends_early_says_its_last_words(tmp_path: Path) -> None:
    command = [sys.executable, "-c", "print('no room for me')"]
    log = tmp_path / "logs" / "log"
    with started(command, {}, log) as process:
        process.wait(30)
        with pytest.raises(StartError, match="no room for me"):
            wait_until(lambda: False, process, log)


def test_what_a_process_and_its_children_use_is_measured_and_ended(tmp_path: Path) -> None:
    work = "sum(range(10**7)); print(1, flush=True); import time; time.sleep(60)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {work!r}])"
    log = tmp_path / "log"
    with started([sys.executable, "-c", parent], {}, log) as process:
        with Meter(process.pid) as meter:
            wait_until(lambda: bool(log.read_text()), process, log)
        assert meter.effort.cpu_s > 0.05
        assert meter.effort.peak_rss_mb > 10
    assert process.poll() is not None
