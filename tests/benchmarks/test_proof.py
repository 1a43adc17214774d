"""The proof finds what differs, fails when it must, and prints the figures that it promises."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import prove
from benchmarks.echo_drafter import EchoDrafter
from benchmarks.machine import is_quick
from benchmarks.proof import Findings, first_difference
from benchmarks.proof_cases import SAMPLING, Case, proof_cases
from benchmarks.random_selector import RandomSelector
from engine.drafters.drafter import DraftRequest
from engine.request import SamplingParams
from policies.selector import Context, Decision

CASE = Case(1, (1, 2), SamplingParams(), 4)
GOOD = Findings(num_tokens=100_000)


def test_equal_answers_have_no_difference() -> None:
    assert first_difference(CASE, (1, 2, 3), (1, 2, 3)) is None


def test_the_first_other_id_is_the_difference() -> None:
    found = first_difference(CASE, (1, 2, 3, 4), (1, 2, 5, 4))
    assert found is not None
    assert (found.position, found.plain, found.speculative) == (2, 3, 5)
    assert found.shared == (1, 2)


def test_an_answer_that_goes_on_differs_at_the_end_of_the_other() -> None:
    found = first_difference(CASE, (1, 2), (1, 2, 5))
    assert found is not None
    assert (found.position, found.plain, found.speculative) == (2, None, 5)


@pytest.mark.parametrize(
    ("invariant", "fast", "expected"),
    [
        (GOOD, GOOD, True),
        (replace(GOOD, num_mismatches=1), GOOD, False),
        (replace(GOOD, num_excused=1), GOOD, False),
        (GOOD, replace(GOOD, num_mismatches=1), False),
        (GOOD, replace(GOOD, num_excused=2), True),
        (GOOD, replace(GOOD, num_excused=3), False),
    ],
)
def test_only_few_excuses_and_only_in_fast_numerics(
    invariant: Findings, fast: Findings, expected: bool
) -> None:
    assert prove.is_proven(invariant, fast) is expected


@pytest.mark.parametrize("num_mismatches", [0, 1])
def test_the_last_line_is_one_object_and_the_status_tells_of_mismatches(
    num_mismatches: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(prove, "resolve_model", Path)
    monkeypatch.setattr(prove, "write_shallow_model", lambda source, num_layers, folder: folder)
    findings = replace(GOOD, num_mismatches=num_mismatches)
    monkeypatch.setattr(prove, "prove", lambda numerics, size, shallow: findings)
    assert prove.main() == num_mismatches
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(figures) >= {"prompts", "tokens", "mismatches", "excused", "fast_tokens"}
    assert figures["mismatches"] == num_mismatches


def test_cases_cover_every_temperature_with_every_option_and_repeat() -> None:
    cases = proof_cases(70, 8, 1, lambda text: list(text.encode()))
    assert cases == proof_cases(70, 8, 1, lambda text: list(text.encode()))
    assert {replace(case.sampling, seed=0).temperature for case in cases} == {0.0, 0.7, 1.0}
    drawn = [replace(case.sampling, seed=0) for case in cases]
    assert all(params in drawn for params in SAMPLING)


def test_the_echo_drafts_the_known_answer_with_mistakes() -> None:
    answer = list(range(100, 164))
    request = DraftRequest("a", "tenant", [1, 2, 3, 100, 101], 3, SamplingParams(), 8)
    (exact,) = EchoDrafter({"a": answer}, 0.0, 1, 500).draft([request])
    assert (exact.base_length, exact.tokens) == (5, tuple(range(102, 110)))
    (wrong,) = EchoDrafter({"a": answer}, 0.5, 1, 500).draft([request])
    assert 0 < sum(a != b for a, b in zip(exact.tokens, wrong.tokens, strict=True)) < 8


def test_the_random_selector_stays_within_what_the_drafters_can_give() -> None:
    selector = RandomSelector(1)
    contexts = [Context("a", "tenant", {"x": 3, "y": 1}, {}), Context("b", "tenant", {}, {})]
    rounds = [selector.choose(contexts) for _ in range(200)]
    assert {decisions[1] for decisions in rounds} == {Decision()}
    assert {decisions[0] for decisions in rounds} == {
        Decision(), Decision("x", 1), Decision("x", 2), Decision("x", 3), Decision("y", 1),
    }  # fmt: skip


@pytest.mark.parametrize(("value", "expected"), [("1", True), ("0", False), ("", False)])
def test_quick_is_asked_for_in_the_environment(
    value: str, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUICK", value)
    assert is_quick() is expected
