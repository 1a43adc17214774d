"""An online suffix automaton over an append-only run of tokens (Blumer et al. 1985).

A state stands for all substrings with one set of end positions. Appending and following a text
take amortised constant time; memory is at most two states per token.
"""

from __future__ import annotations

ROOT = 0
MAX_UPDATED_STATES = 16  # bounds the walk in texts like "aaaa"; the states above keep an older end


class SuffixAutomaton:
    """All substrings of `tokens`, each with where it ended most recently (exclusive)."""

    def __init__(self) -> None:
        self.tokens: list[int] = []
        self._next: list[dict[int, int]] = [{}]
        self._link: list[int] = [-1]
        self._length: list[int] = [0]
        self._latest_end: list[int] = [0]
        self._last = ROOT

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def num_states(self) -> int:
        return len(self._next)

    def append(self, token: int) -> tuple[int, int]:
        """Adds a token; returns the longest suffix seen before, as (its earlier end, its length).

        The suffix and its earlier occurrence may overlap; (0, 0) if there is none.
        """
        self.tokens.append(token)
        end = len(self.tokens)
        last = self._add_state({}, self._length[self._last] + 1, end)
        state = self._last
        while state >= 0 and token not in self._next[state]:
            self._next[state][token] = last
            state = self._link[state]
        self._link[last] = self._split(state, token) if state >= 0 else ROOT
        self._last = last
        repeated = self._link[last]
        found = (self._latest_end[repeated], self._length[repeated])
        self._mark_end(repeated, end)
        return found

    def step(self, state: int, length: int, token: int) -> tuple[int, int]:
        """The longest suffix of (the `length` tokens matched at `state`) + `token` that occurs.

        Start from (ROOT, 0); a state is valid until the next `append`.
        """
        while state != ROOT and token not in self._next[state]:
            state = self._link[state]
            length = self._length[state]
        state = self._next[state].get(token, -1)
        return (state, length + 1) if state >= 0 else (ROOT, 0)

    def shorten(self, state: int, length: int) -> int:
        """The state of the last `length` tokens of what is matched at `state`."""
        while state != ROOT and self._length[self._link[state]] >= length:
            state = self._link[state]
        return state

    def latest_end(self, state: int) -> int:
        return self._latest_end[state]

    def _add_state(self, following: dict[int, int], length: int, end: int) -> int:
        self._next.append(following)
        self._link.append(ROOT)
        self._length.append(length)
        self._latest_end.append(end)
        return len(self._next) - 1

    def _split(self, state: int, token: int) -> int:
        """The state that `token` leads to from the longest string of `state`, and from no longer.

        It exists already, or is cut off from one that also stands for longer strings.
        """
        reached = self._next[state][token]
        if self._length[reached] == self._length[state] + 1:
            return reached
        clone = self._add_state(
            dict(self._next[reached]), self._length[state] + 1, self._latest_end[reached]
        )
        self._link[clone] = self._link[reached]
        self._link[reached] = clone
        while state >= 0 and self._next[state].get(token) == reached:
            self._next[state][token] = clone
            state = self._link[state]
        return clone

    def _mark_end(self, state: int, end: int) -> None:
        for _ in range(MAX_UPDATED_STATES):
            if state == ROOT:
                return
            self._latest_end[state] = end
            state = self._link[state]
