"""Draws one token from one row of logits; the same code for plain, verified and drafted tokens.

The order is: penalties -> logit bias -> min_tokens -> temperature -> top_k -> min_p -> top_p ->
+ noise -> argmax, ties to the lowest id. Everything is a function of the row, the sampling
parameters, the tokens before the position and (seed, position): no state outlives `push`.
"""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from engine.noise import Hashes, gumbel, hash_noise, largest_hash_above, spread
from engine.reduced_vocabulary import ReducedVocabulary
from engine.request import SamplingParams, TokenLogprob

Row = NDArray[np.float32]  # [vocab]
Ids = NDArray[np.intp]

_COLDEST = 1e-30  # colder temperatures draw the same, until float32 divides by zero
_NEAR = 4.0  # tokens within this of the best are tried first; any value is exact
_REACHES = (
    2.0,
    4.0,
    8.0,
    12.0,
    16.0,
    math.inf,
)  # ever larger heads to look for top_k and top_p in; all exact


class TokenSampler:
    """Sampling state of one sequence: its parameters and the tokens its penalties have seen.

    `min_tokens` counts the tokens that were pushed.
    """

    def __init__(self, params: SamplingParams, prompt: Sequence[int]) -> None:
        self.params = params
        self._num_pushed = 0
        self._masked = np.asarray(params.masked_ids if params.min_tokens else (), dtype=np.intp)
        self._counts: Counter[int] = Counter()
        self._counts_tokens = bool(params.presence_penalty or params.frequency_penalty)
        self._repeats = params.repetition_penalty != 1.0
        self._seen = set(prompt) if self._repeats else set()
        self._bias_ids = np.fromiter(params.logit_bias.keys(), dtype=np.intp)
        self._bias = np.fromiter(params.logit_bias.values(), dtype=np.float32)

    @property
    def is_plain_greedy(self) -> bool:
        """Whether the token is the row's argmax and nothing else matters."""
        return self.params.temperature == 0.0 and not (
            self._counts_tokens or self._repeats or self._masked.size or self._bias.size
        )

    @property
    def is_pure(self) -> bool:
        """Whether logits, temperature and noise alone make the token, and nothing else is asked."""
        params = self.params
        is_cut = params.top_k > 0 or params.min_p > 0.0 or params.top_p < 1.0
        is_changed = (
            self._counts_tokens or self._repeats or self._masked.size > 0 or self._bias.size > 0
        )
        is_asked_more = params.logprobs is not None
        return params.temperature > 0.0 and not (is_cut or is_changed or is_asked_more)

    @property
    def divisor(self) -> np.float32:
        """What logits are divided by, unless they are not."""
        return np.float32(max(self.params.temperature, _COLDEST))

    def fork(self) -> TokenSampler:
        """An independent copy, for tokens that may be taken back."""
        twin = copy.copy(self)
        twin._counts = self._counts.copy()
        twin._seen = set(self._seen)
        return twin

    def push(self, token: int) -> None:
        """Tells the penalties that `token` was emitted."""
        self._num_pushed += 1
        if self._counts_tokens:
            self._counts[token] += 1
        if self._repeats:
            self._seen.add(token)

    def sample(self, row: Row, position: int, vocabulary: ReducedVocabulary | None = None) -> int:
        """The token at absolute `position` of the sequence, from the target's raw logits.

        With a `vocabulary`, of its ids alone: as if the row had -inf for all others.
        """
        place = self._sample_place(row, position, vocabulary)
        return place if vocabulary is None else int(vocabulary.ids[place])

    def sample_among(self, ids: Ids, logits: Row, peak: np.float32, position: int) -> int:
        """What `sample` gives, of a row whose largest is `peak`, if it is among `ids`, ascending.

        `logits` are those of the ids. Of samplers that are pure.
        """
        if ids.size == 1:
            return int(ids[0])
        noise = gumbel(hash_noise(self.params.seed, position, spread(ids)))
        return int(ids[((logits - peak) / self.divisor + noise).argmax()])

    def _sample_place(self, row: Row, position: int, vocabulary: ReducedVocabulary | None) -> int:
        row = self._process(row, vocabulary)
        peak = row.max()
        if self.params.temperature == 0.0 or not np.isfinite(peak):  # all masked, or a broken model
            return int(row.argmax())
        scaled = (row - peak) / self.divisor
        survivors = truncate(scaled, self.params)
        ids = _spread_of_vocab(scaled.size) if vocabulary is None else vocabulary.spread_ids
        if survivors is None:
            return _argmax_with_noise(scaled, hash_noise(self.params.seed, position, ids))
        noise = gumbel(hash_noise(self.params.seed, position, ids[survivors]))
        return int(survivors[(scaled[survivors] + noise).argmax()])

    def _process(self, row: Row, vocabulary: ReducedVocabulary | None) -> Row:
        """Penalties, logit bias and the min_tokens mask, on a copy if there is any."""
        if self._is_unprocessed:
            return row
        params = self.params
        spare = 0 if vocabulary is None else 1  # for the ids that the row has not
        row = np.concatenate([row, np.zeros(spare, np.float32)])

        def places(ids: Ids) -> Ids:
            return ids if vocabulary is None else vocabulary.places(ids)

        if self._repeats:
            seen = places(np.fromiter(sorted(self._seen), dtype=np.intp))
            values, factor = row[seen], np.float32(params.repetition_penalty)
            row[seen] = np.where(values > 0, values / factor, values * factor)
        if self._counts:
            at = places(np.fromiter(self._counts.keys(), dtype=np.intp))
            counts = np.fromiter(self._counts.values(), dtype=np.float32)
            row[at] -= np.float32(params.frequency_penalty) * counts
            row[at] -= np.float32(params.presence_penalty)
        if self._bias.size:
            row[places(self._bias_ids)] += self._bias
        if self._masks_now:
            row[places(self._masked)] = -np.inf
        return row[: row.size - spare]

    @property
    def _masks_now(self) -> bool:
        return self._masked.size > 0 and self._num_pushed < self.params.min_tokens

    @property
    def _is_unprocessed(self) -> bool:
        return not (self._repeats or self._counts or self._bias.size or self._masks_now)


def truncate(scaled: Row, params: SamplingParams) -> Ids | None:
    """Ids that top_k, then min_p, then top_p leave, ascending; None if none of them is set.

    `scaled` holds logits over temperature, the largest being 0. Each step renormalises what the
    step before left; equal logits rank by id.
    """
    kept: Ids | None = None
    if 0 < params.top_k < scaled.size:
        kept = _top_k(scaled, params.top_k)
    if params.min_p > 0.0:
        level = math.log(params.min_p)
        kept = np.flatnonzero(scaled >= level) if kept is None else kept[scaled[kept] >= level]
    if params.top_p < 1.0:
        kept = _top_p(scaled, kept, params.top_p)
    return kept


def _top_k(scaled: Row, top_k: int) -> Ids:
    """The `top_k` largest, ascending by id; of equals at the edge the lowest ids."""
    peak = scaled.max()
    for reach in _REACHES:
        head = np.flatnonzero(scaled >= peak - reach)
        if head.size >= top_k:
            break
    values = scaled[head]
    edge = np.partition(values, head.size - top_k)[head.size - top_k]
    above = head[values > edge]
    at_edge = head[values == edge][: top_k - above.size]
    return np.sort(np.concatenate([above, at_edge]))


def _top_p(scaled: Row, kept: Ids | None, top_p: float) -> Ids:
    """The smallest set of most likely ids whose mass reaches `top_p`, ascending by id."""
    values = scaled if kept is None else scaled[kept]
    weights = np.exp(values)
    needed = top_p * float(weights.sum(dtype=np.float64))
    for reach in _REACHES:
        head = np.flatnonzero(values >= -reach)
        if float(weights[head].sum(dtype=np.float64)) >= needed:
            break
    head = head[np.argsort(-values[head], kind="stable")]
    mass = np.cumsum(weights[head], dtype=np.float64)
    size = min(int(np.searchsorted(mass, needed)) + 1, head.size)
    chosen = np.sort(head[:size])
    return chosen if kept is None else kept[chosen]


_spread_vocab = spread(np.arange(0))


def _spread_of_vocab(size: int) -> Hashes:
    """`spread` of all ids, kept because it is the same at every position."""
    global _spread_vocab
    if _spread_vocab.size < size:
        _spread_vocab = spread(np.arange(size))
    return _spread_vocab[:size]


def _argmax_with_noise(scaled: Row, hashes: Hashes) -> int:
    """argmax over the whole row, with logarithms only for those that can win.

    The likely tokens are tried first; of the others only those can beat them whose noise makes up
    for at least `_NEAR`, and that is a bound on the hash.
    """
    near = scaled >= -_NEAR
    best = float((scaled[near] + gumbel(hashes[near])).max())
    rivals = np.flatnonzero(near | (hashes <= np.uint32(largest_hash_above(best + _NEAR))))
    return int(rivals[(scaled[rivals] + gumbel(hashes[rivals])).argmax()])


def log_probs_of(row: Row, token: int, num_top: int) -> TokenLogprob:
    """Log-probability of `token`, and the `num_top` most likely, under the unprocessed row."""
    peak = float(row.max())
    log_total = peak + math.log(float(np.exp(row - np.float32(peak)).sum(dtype=np.float64)))
    top: tuple[tuple[int, float], ...] = ()
    if num_top:
        ids = _top_k(row, num_top) if num_top < row.size else np.arange(row.size)
        ids = ids[np.argsort(-row[ids], kind="stable")]
        top = tuple((int(i), float(row[i]) - log_total) for i in ids)
    return TokenLogprob(token, float(row[token]) - log_total, top)
