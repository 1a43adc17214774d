"""Who computes what: every round's plan, with a forward that only counts."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scheduler_rounds import BLOCK_SIZE, Rounds, sequence


@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**32),
    num_blocks=st.integers(8, 24),
    max_num_sequences=st.integers(1, 6),
    max_batch_tokens=st.integers(6, 24),
    draft_length=st.integers(0, 9),
)
def test_every_history_ends_with_all_tokens_and_no_block_lost(
    seed: int, num_blocks: int, max_num_sequences: int, max_batch_tokens: int, draft_length: int
) -> None:
    """Tiny caches, many arrivals and departures: no livelock, and the invariants every round."""
    rng = random.Random(seed)
    rounds = Rounds(num_blocks, max_num_sequences, max_batch_tokens)
    longest = num_blocks * BLOCK_SIZE
    todo = []
    for index in range(10):
        num_prompt_tokens = rng.randint(1, longest - 1)
        max_tokens = rng.randint(1, min(30, longest - num_prompt_tokens))
        leader = f"{rng.randrange(index)}" if index and rng.random() < 0.3 else None
        tenant = rng.choice("ab")
        todo.append(sequence(f"{index}", num_prompt_tokens, max_tokens, leader, tenant))
    expected = {added.id: added for added in todo}
    cancelled = set()
    while todo:
        rounds.add(todo.pop())
        for _ in range(rng.randrange(4)):
            rounds.play(draft_length)
        if rng.random() < 0.2 and rounds.scheduler.running:
            victim = rng.choice([*rounds.scheduler.running, *rounds.scheduler.waiting])
            rounds.scheduler.remove(victim)
            cancelled.add(victim.id)
            rounds.check_blocks()
    rounds.play_out(draft_length)
    assert sorted([*rounds.finished, *cancelled]) == sorted(expected)
    for name in rounds.finished:
        assert expected[name].num_generated == expected[name].request.max_tokens
    assert rounds.pool.num_used == 0


def test_every_running_sequence_gets_its_token_each_round_while_others_prefill() -> None:
    rounds = Rounds(max_batch_tokens=8)
    rounds.add(sequence("a", 3, 20), sequence("b", 3, 20, first=50))
    rounds.play()
    rounds.add(sequence("long", 40, 4, first=100))
    for _ in range(7):
        steps = {step.sequence.id: step.num_new for step in rounds.plan()}
        assert steps["a"] == steps["b"] == 1
        assert steps.get("long", 0) <= 6
        rounds.play()


def test_prefill_chunks_use_the_whole_budget() -> None:
    rounds = Rounds(max_batch_tokens=10)
    rounds.add(sequence("a", 25), sequence("b", 12, first=50))
    chunks = []
    for _ in range(4):
        chunks.append([(step.sequence.id, step.num_new) for step in rounds.plan()])
        rounds.play()
    assert chunks == [
        [("a", 10)],
        [("a", 10)],
        [("a", 5), ("b", 5)],
        [("a", 1), ("b", 7)],
    ]


def test_a_chunk_that_does_not_reach_the_end_emits_nothing() -> None:
    rounds = Rounds(max_batch_tokens=10)
    rounds.add(sequence("a", 11))
    (step,) = rounds.plan()
    assert not step.emits
    rounds.play()
    (step,) = rounds.plan()
    assert step.emits


def test_new_sequences_start_first_come_first_served() -> None:
    rounds = Rounds(num_blocks=8, max_num_sequences=3)
    rounds.add(sequence("a", 4), sequence("big", 25, 4, first=50), sequence("c", 4, first=90))
    assert rounds.play() == ["a"]  # c does not overtake big
    assert [waiting.id for waiting in rounds.scheduler.waiting] == ["big", "c"]
    rounds.play_out()
    assert rounds.finished == ["a", "big", "c"]


def test_no_more_sequences_run_than_allowed() -> None:
    rounds = Rounds(max_num_sequences=2)
    rounds.add(*(sequence(f"{i}", 4, first=10 * i) for i in range(5)))
    for _ in range(20):
        assert len(rounds.play()) <= 2
    rounds.play_out()


def test_preemption_takes_the_youngest_and_it_comes_back_first() -> None:
    rounds = Rounds(num_blocks=6)
    rounds.add(*(sequence(name, 3, 12, first=10 * i) for i, name in enumerate("abc")))
    order = []
    while not rounds.scheduler.num_preemptions:
        order = rounds.play()
    assert order == ["a", "b"]
    assert [waiting.id for waiting in rounds.scheduler.waiting] == ["c"]
    rounds.add(sequence("d", 3, 12, first=40))
    rounds.play_out()
    assert rounds.finished.index("c") < rounds.finished.index("d")
    assert rounds.finished[:2] == ["a", "b"]


def test_preempted_sequences_keep_their_tokens_and_are_computed_again() -> None:
    rounds = Rounds(num_blocks=5)
    younger = sequence("b", 6, 12, first=50)
    rounds.add(sequence("a", 6, 12), younger)
    while not rounds.scheduler.num_preemptions:
        rounds.play()
    assert younger.num_generated > 0
    assert younger.num_pending == len(younger.tokens)
    assert younger.num_cached_tokens == 0  # of the prompt, at its first start
    rounds.play_out()
    assert younger.num_generated == 12


def test_a_sequence_as_large_as_the_cache_runs_alone_to_its_end() -> None:
    rounds = Rounds(num_blocks=4)
    rounds.add(sequence("a", 8, 8), sequence("b", 8, 8, first=50))
    rounds.play_out(draft_length=5)
    assert sorted(rounds.finished) == ["a", "b"]


def test_a_follower_waits_for_its_leader_and_shares_its_prompt() -> None:
    rounds = Rounds(max_batch_tokens=8)
    follower = sequence("n1", 17, leader="n0")
    rounds.add(sequence("n0", 17, leader="n0"), follower, sequence("other", 2, first=90))
    assert rounds.play() == ["n0"]
    assert rounds.play() == ["n0"]
    assert rounds.play() == ["n0", "other"]  # waiting for a leader holds nobody up
    assert rounds.play() == ["n0", "other", "n1"]
    assert follower.num_cached_tokens == 16
    rounds.play_out()


def test_a_follower_whose_leader_has_left_starts_by_itself() -> None:
    rounds = Rounds(max_batch_tokens=8)
    leader = sequence("n0", 17)
    rounds.add(leader, sequence("n1", 17, leader="n0"), sequence("n2", 17, leader="gone"))
    assert rounds.play() == ["n0"]
    rounds.scheduler.remove(leader)
    assert rounds.play() == ["n1"]
    rounds.play_out()
    assert sorted(rounds.finished) == ["n1", "n2"]


def test_a_shared_prompt_leaves_its_last_token_to_compute() -> None:
    rounds = Rounds()
    rounds.add(sequence("a", 16, 1))
    rounds.play_out()
    again = sequence("b", 16, 1)
    rounds.add(again)
    (step,) = rounds.plan()
    assert (again.num_computed, step.num_new) == (12, 4)
    assert again.num_cached_tokens == 12


def test_tenants_do_not_find_each_others_prompts() -> None:
    rounds = Rounds()
    rounds.add(sequence("a", 16, 1, tenant="one"))
    rounds.play_out()
    stranger = sequence("b", 16, 1, tenant="two")
    rounds.add(stranger)
    rounds.plan()
    assert stranger.num_cached_tokens == 0


@pytest.mark.parametrize("num_computed", [3, 4, 7, 8])
def test_only_full_blocks_of_computed_tokens_are_published(num_computed: int) -> None:
    rounds = Rounds()
    first = sequence("a", 12)
    rounds.add(first)
    rounds.plan()
    first.num_computed = num_computed
    rounds.scheduler.publish(first)
    assert len(rounds.pool.share(first.hashes(3, BLOCK_SIZE))) == num_computed // BLOCK_SIZE


def test_a_draft_takes_no_block_from_anyone() -> None:
    rounds = Rounds(num_blocks=3)
    first, second = sequence("a", 4), sequence("b", 2, first=50)
    rounds.add(first, second)
    rounds.play()
    assert len(first.tokens) == 5
    rounds.plan()
    assert rounds.pool.num_available == 0
    assert rounds.scheduler.room_for_draft(first, 16) == 3
    assert rounds.scheduler.room_for_draft(second, 1) == 1
    assert rounds.scheduler.room_for_draft(second, 16) == 1
