"""Stop strings: found across tokens, never shown, and the same however tokens come in blocks."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.answer_text import AnswerText

PIECES = st.lists(st.sampled_from(["a", "b", "ab", "ba", "", "aab", "c"]), min_size=1, max_size=14)
STOPS = st.lists(st.text("abc", min_size=1, max_size=4), max_size=3)
checked = settings(max_examples=400, deadline=None, derandomize=True)


class Pieces:
    """Token i is the text of piece i; `left` is what only the flush gives."""

    def __init__(self, pieces: list[str], left: str = "") -> None:
        self._pieces, self._left = pieces, left

    def push(self, token_id: int) -> str:
        return self._pieces[token_id]

    def flush(self) -> str:
        return self._left


def run(
    pieces: list[str], stops: list[str], block: int = 1, min_tokens: int = 0, left: str = ""
) -> tuple[list[str], int]:
    """What is handed out after each block of tokens, and the tokens used; as the engine does it."""
    answer = AnswerText(Pieces(pieces, left), stops)
    taken = []
    used = 0
    for index in range(len(pieces)):
        answer.push(index, index + 1 >= min_tokens)
        used += 1
        if answer.is_stopped:
            break
        if used % block == 0:
            taken.append(answer.take())
    return [*taken, answer.finish()], used


def expected_text(pieces: list[str], stops: list[str], min_tokens: int = 0) -> tuple[str, int]:
    """The text before the first stop string that ends in a token that may stop; tokens used."""
    text = ""
    for index, piece in enumerate(pieces):
        before, text = text, text + piece
        ends = range(len(before) + 1, len(text) + 1) if index + 1 >= min_tokens else ()
        starts = [end - len(stop) for end in ends for stop in stops if text[:end].endswith(stop)]
        if starts:
            return text[: min(starts)], index + 1
    return text, len(pieces)


@checked
@given(pieces=PIECES, stops=STOPS, block=st.integers(1, 5))
def test_joined_text_is_the_text_cut_at_the_first_stop_string(
    pieces: list[str], stops: list[str], block: int
) -> None:
    taken, used = run(pieces, stops, block)
    assert ("".join(taken), used) == expected_text(pieces, stops)


@checked
@given(pieces=PIECES, stops=STOPS, min_tokens=st.integers(0, 14))
def test_text_and_length_do_not_depend_on_the_blocks_in_which_tokens_come(
    pieces: list[str], stops: list[str], min_tokens: int
) -> None:
    outcomes = set()
    for block in range(1, 7):
        taken, used = run(pieces, stops, block, min_tokens)
        outcomes.add(("".join(taken), used))
    assert len(outcomes) == 1


@checked
@given(pieces=PIECES, stops=STOPS, min_tokens=st.integers(0, 14))
def test_only_a_stop_string_that_ends_after_min_tokens_stops(
    pieces: list[str], stops: list[str], min_tokens: int
) -> None:
    """Text that was already handed out stays; a stop string may begin before min_tokens."""
    taken, used = run(pieces, stops, 1, min_tokens)
    assert used == expected_text(pieces, stops, min_tokens)[1]
    assert "".join(pieces).startswith("".join(taken))


@checked
@given(pieces=PIECES, stops=STOPS)
def test_no_part_of_a_stop_string_is_shown_that_could_still_complete(
    pieces: list[str], stops: list[str]
) -> None:
    answer, shown, known = AnswerText(Pieces(pieces), stops), "", ""
    for index, piece in enumerate(pieces):
        answer.push(index, True)
        if answer.is_stopped:
            break
        known += piece
        shown += answer.take()
        begun = [size for stop in stops for size in range(len(stop)) if known.endswith(stop[:size])]
        assert len(shown) <= len(known) - max(begun, default=0)
    assert not any(stop in shown + answer.finish() for stop in stops)


@checked
@given(pieces=PIECES, stops=STOPS)
def test_no_more_is_held_back_than_a_stop_string_may_need(
    pieces: list[str], stops: list[str]
) -> None:
    answer, shown = AnswerText(Pieces(pieces), stops), ""
    for index in range(len(pieces)):
        answer.push(index, True)
        if answer.is_stopped:
            break
        shown += answer.take()
        held = "".join(pieces[: index + 1])[len(shown) :]
        assert not held or any(stop.startswith(held) for stop in stops)


def test_a_stop_string_across_three_tokens_cuts_in_the_middle_of_the_first() -> None:
    assert run(["xxEN", "D", "OFyy"], ["ENDOF"]) == (["xx", "", ""], 3)


def test_the_earliest_of_several_stop_strings_wins() -> None:
    assert run(["one two three"], ["three", "two"]) == (["one "], 1)
    assert run(["abc"], ["bc", "abc"]) == ([""], 1)


def test_held_text_comes_out_when_it_turns_out_harmless() -> None:
    assert run(["E", "N", "x"], ["END"]) == (["", "", "ENx", ""], 3)


def test_held_text_comes_out_at_the_end() -> None:
    assert run(["hi E", "N"], ["END"]) == (["hi ", "", "EN"], 2)


def test_without_stop_strings_nothing_is_held() -> None:
    assert run(["a", "b"], []) == (["a", "b", ""], 2)


def test_a_stop_string_that_the_flush_completes_is_cut() -> None:
    taken, _ = run(["ok ", "EN"], ["EN\ufffd"], left="\ufffd")
    assert "".join(taken) == "ok "


@pytest.mark.parametrize("block", [1, 2, 4])
def test_a_stop_string_complete_before_min_tokens_stops_nothing_later(block: int) -> None:
    taken, used = run(["x", "a", "b", "c"], ["x"], block, min_tokens=3)
    assert ("".join(taken), used) == ("xabc", 4)


@pytest.mark.parametrize("block", [1, 2, 4])
def test_a_stop_string_that_begins_before_min_tokens_may_end_after_them(block: int) -> None:
    taken, used = run(["S", "T", "OP", "x"], ["STOP"], block, min_tokens=3)
    assert ("".join(taken), used) == ("", 3)
