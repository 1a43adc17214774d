"""Answers that no target can go on with end; what a full one refuses, another answers."""

from __future__ import annotations

import pytest
from http_calls import run
from lossy_targets import SOON, choices, listen, replicas, undisturbed

from cluster.settings import Resume
from deployments.refusal import RefusedError
from deployments.resume import ResumingClient
from deployments.route import Route
from deployments.target_client import TargetFailedError


def test_a_request_that_ends_every_target_ends_itself() -> None:
    async def test() -> None:
        with replicas(*[(2, "dies")] * 20) as targets:
            client = ResumingClient(targets, Resume(max_losses=3))
            with pytest.raises(ConnectionError):
                await listen(client, choices())
        assert len(targets.seen) == 4

    run(test)


def test_a_request_that_no_target_can_take_ends() -> None:
    """Each answers at once, with an error of its own."""

    async def test() -> None:
        with replicas(*[(0, "breaks")] * 20) as targets:
            client = ResumingClient(targets, Resume(max_losses=3))
            with pytest.raises(TargetFailedError):
                await listen(client, choices())
        assert len(targets.seen) == 4

    run(test)


def test_a_full_target_s_refusal_is_the_caller_s_where_there_is_no_other() -> None:
    async def test() -> None:
        with replicas((0, "full"), count=1) as targets, pytest.raises(RefusedError):
            await listen(ResumingClient(targets, SOON), choices())
        assert len(targets.seen) == 1

    run(test)


def test_what_a_full_target_refuses_the_next_one_answers_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = undisturbed(choices())
    monkeypatch.setattr("deployments.resume._FIRST_PAUSE_S", 1e9)

    async def test() -> None:
        with replicas((0, "full")) as targets:
            said, _ = await listen(ResumingClient(targets, SOON), choices())
        assert said == expected
        assert targets.routes == [Route("session", 0), Route("session", 1)]

    run(test)


@pytest.mark.parametrize("faults", [["full", "full"], ["dies", "full", "full"]])
def test_a_second_full_target_s_refusal_is_the_caller_s(faults: list[str]) -> None:
    async def test() -> None:
        losses = [(0, fault) for fault in faults]
        with replicas(*losses, count=3) as targets, pytest.raises(RefusedError):
            await listen(ResumingClient(targets, SOON), choices())
        assert len(targets.seen) == len(faults)

    run(test)


def test_what_is_wrong_with_a_request_is_asked_of_no_other_target() -> None:
    async def test() -> None:
        with replicas((0, "invalid")) as targets, pytest.raises(RefusedError):
            await listen(ResumingClient(targets, SOON), choices())
        assert len(targets.seen) == 1

    run(test)


@pytest.mark.parametrize("num_items", [1, 9, 16])
def test_an_answer_that_was_taken_waits_for_a_place_elsewhere(num_items: int) -> None:
    """With no token yet, with some, and with one of the choices said."""
    expected = undisturbed(choices())

    async def test() -> None:
        with replicas((num_items, "dies"), *[(0, "full")] * 3) as targets:
            said, _ = await listen(ResumingClient(targets, SOON), choices())
        assert said == expected
        assert len(targets.seen) == 5

    run(test)
