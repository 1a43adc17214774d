"""The sampler against a slow one written from the definition, on generated distributions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from engine.noise import gumbel, hash_noise, spread
from engine.reduced_vocabulary import ReducedVocabulary
from engine.request import SamplingParams
from engine.sampling import TokenSampler, log_probs_of, truncate

VOCAB = 12
CLOSE = 1e-4  # what float32 may decide either way is not asked for
checked = settings(max_examples=300, deadline=None, derandomize=True)


class TooClose(Exception):
    """Rounding decides here."""


def clearly(left: float, right: float) -> bool:
    """Whether left >= right, if it is not a matter of rounding."""
    if left != right and abs(left - right) < CLOSE * max(1.0, abs(left)):
        raise TooClose
    return left >= right


def reference_noise(seed: int, position: int, token: int) -> float:
    x = (int(hash_noise(seed, position, spread(np.array([token])))[0]) + 0.5) / 2**32
    return -math.log(-math.log1p(-x))


def reference_processed(
    logits: Sequence[float],
    params: SamplingParams,
    prompt: Sequence[int],
    generated: Sequence[int],
    masked: Iterable[int],
) -> list[float]:
    """Penalties, then logit bias, then the mask, token by token."""
    values = list(logits)
    for token in range(len(values)):
        if token in prompt or token in generated:
            factor = params.repetition_penalty
            values[token] = values[token] / factor if values[token] > 0 else values[token] * factor
        count = generated.count(token)
        values[token] -= count * params.frequency_penalty
        values[token] -= (count > 0) * params.presence_penalty
        values[token] += params.logit_bias.get(token, 0.0)
        if token in masked and len(generated) < params.min_tokens:
            values[token] = -math.inf
    return values


def reference_kept(values: Sequence[float], params: SamplingParams) -> list[int]:
    """top_k, then min_p, then top_p; each step renormalises; equal values rank by id."""
    peak = max(values)
    weights = [math.exp((value - peak) / params.temperature) for value in values]
    ranked = sorted(range(len(values)), key=lambda token: (-values[token], token))
    if params.top_k:
        ranked = ranked[: params.top_k]
    ranked = [
        token
        for token in ranked
        if not params.min_p or clearly(weights[token] / weights[ranked[0]], params.min_p)
    ]
    needed = params.top_p * sum(weights[token] for token in ranked)
    kept: list[int] = []
    for token in ranked:
        if params.top_p < 1.0 and kept and clearly(sum(weights[t] for t in kept), needed):
            break
        kept.append(token)
    return kept


def reference_token(values: Sequence[float], params: SamplingParams, position: int) -> int:
    if params.temperature == 0.0:
        peak = max(values)
        if any(0 < peak - value < CLOSE for value in values):
            raise TooClose
        return min(token for token, value in enumerate(values) if value == peak)
    scores = {
        token: values[token] / params.temperature + reference_noise(params.seed, position, token)
        for token in reference_kept(values, params)
        if values[token] > -math.inf
    }
    first, *rest = sorted(scores, key=lambda token: -scores[token])
    if rest and scores[first] - scores[rest[0]] < CLOSE:
        raise TooClose
    return first


LOGITS = st.lists(
    st.integers(-24, 24).map(lambda n: n / 4)  # a grid, so that there are ties
    | st.sampled_from([-math.inf, -1e9, 0.0])
    | st.floats(-30, 30).map(lambda n: round(n, 4)),  # what differs still does after a shift
    min_size=2,
    max_size=VOCAB,
).filter(lambda values: max(values) > -1e9)
PARAMS = st.builds(
    SamplingParams,
    temperature=st.sampled_from([0.0, 0.25, 0.7, 1.0, 1.3, 2.0]),
    top_p=st.sampled_from([1.0, 1.0, 0.99, 0.9, 0.6, 0.31, 0.05]),
    top_k=st.sampled_from([0, 0, 1, 2, 3, 5, 11, 100]),
    min_p=st.sampled_from([0.0, 0.0, 0.01, 0.1, 0.37, 1.0]),
    presence_penalty=st.sampled_from([0.0, 0.0, 0.5, -1.25, 2.0]),
    frequency_penalty=st.sampled_from([0.0, 0.0, 0.25, -0.5, 2.0]),
    repetition_penalty=st.sampled_from([1.0, 1.0, 1.5, 0.5]),
    logit_bias=st.dictionaries(st.sampled_from([0, 1]), st.sampled_from([-100.0, -1.5, 2.0])),
    min_tokens=st.integers(0, 3),
    seed=st.integers(-(2**63), 2**64 - 1),
)


def sampler_after(
    params: SamplingParams,
    prompt: Sequence[int] = (),
    generated: Sequence[int] = (),
    masked: Sequence[int] = (),
) -> TokenSampler:
    sampler = TokenSampler(replace(params, masked_ids=tuple(masked)), prompt)
    for token in generated:
        sampler.push(token)
    return sampler


@checked
@given(
    logits=LOGITS,
    params=PARAMS,
    position=st.integers(0, 10_000),
    prompt=st.lists(st.integers(0, 1), max_size=4),
    generated=st.lists(st.integers(0, 1), max_size=4),
    masked=st.sets(st.integers(0, 1), max_size=1),
)
def test_every_token_is_the_one_that_the_definition_gives(
    logits: list[float],
    params: SamplingParams,
    position: int,
    prompt: list[int],
    generated: list[int],
    masked: set[int],
) -> None:
    row = np.array(logits, dtype=np.float32)
    values = reference_processed(row.tolist(), params, prompt, generated, masked)
    assume(max(values) > -1e8)
    try:
        expected = reference_token(values, params, position)
    except TooClose:
        assume(False)
    before = row.copy()
    sampler = sampler_after(params, prompt, generated, sorted(masked))
    assert sampler.sample(row, position) == expected
    np.testing.assert_array_equal(row, before)


@checked
@given(
    logits=LOGITS,
    params=PARAMS,
    keeps=st.lists(st.booleans(), min_size=VOCAB, max_size=VOCAB),
    prompt=st.lists(st.integers(0, 1), max_size=4),
    generated=st.lists(st.integers(0, 1), max_size=4),
    masked=st.sets(st.integers(0, 1), max_size=1),
)
def test_of_a_reduced_vocabulary_it_draws_as_if_all_else_were_impossible(
    logits: list[float],
    params: SamplingParams,
    keeps: list[bool],
    prompt: list[int],
    generated: list[int],
    masked: set[int],
) -> None:
    ids = [i for i in range(len(logits)) if keeps[i]]
    assume(ids)
    vocabulary = ReducedVocabulary(ids, len(logits))
    part = np.array(logits, dtype=np.float32)[ids]
    (row,) = vocabulary.expand(part[None])
    values = reference_processed(row.tolist(), params, prompt, generated, masked)
    assume(max(values) > -1e8)
    sampler = sampler_after(params, prompt, generated, sorted(masked))
    for position in range(4):
        assert sampler.sample(part, position, vocabulary) == sampler.sample(row, position)


@checked
@given(logits=LOGITS, params=PARAMS)
def test_the_tokens_kept_are_those_of_the_definition(
    logits: list[float], params: SamplingParams
) -> None:
    params = replace(params, temperature=1.0)
    row = np.array(logits, dtype=np.float32)
    scaled = row - row.max()  # may make equal what differs by less than float32 holds
    kept = truncate(scaled, params)
    try:
        expected = reference_kept(scaled.tolist(), params)
    except TooClose:
        assume(False)
    if kept is None:
        assert len(expected) == len(logits)
    else:
        assert kept.tolist() == sorted(expected)


def kept_of(logits: Sequence[float], **options: float) -> list[int]:
    row = np.array(logits, dtype=np.float32)
    kept = truncate(row - row.max(), SamplingParams(**options))  # type: ignore[arg-type]
    assert kept is not None
    return [int(token) for token in kept]


@pytest.mark.parametrize(("top_p", "size"), [(0.125, 1), (0.25, 2), (0.5, 4), (0.51, 5), (0.9, 8)])
def test_top_p_keeps_exactly_the_tokens_that_reach_it(top_p: float, size: int) -> None:
    assert kept_of([1.0] * 8, top_p=top_p) == list(range(size))


def test_top_p_always_keeps_the_likeliest_token() -> None:
    assert kept_of([0.0, 9.0, 1.0], top_p=5e-324) == [1]


def test_top_k_keeps_the_lowest_ids_of_equals_at_its_edge() -> None:
    assert kept_of([1.0, 3.0, 1.0, 2.0, 1.0], top_k=3) == [0, 1, 3]
    assert kept_of([1.0, 3.0, 1.0, 2.0, 1.0], top_k=4) == [0, 1, 2, 3]


def test_min_p_is_relative_to_the_likeliest_token() -> None:
    logits = [math.log(p) for p in (0.5, 0.26, 0.24)]
    assert kept_of(logits, min_p=0.5) == [0, 1]
    assert kept_of(logits, min_p=1.0) == [0]


def test_top_p_counts_only_the_mass_that_top_k_and_min_p_left() -> None:
    logits = [math.log(p) for p in (0.4, 0.3, 0.2, 0.1)]
    assert kept_of(logits, top_p=0.55) == [0, 1]
    assert kept_of(logits, top_k=2, top_p=0.55) == [0]
    assert kept_of(logits, min_p=0.6, top_p=0.55) == [0]


def test_top_k_of_the_whole_vocabulary_or_more_keeps_everything() -> None:
    row = np.zeros(8, dtype=np.float32)
    assert truncate(row, SamplingParams(top_k=8)) is None
    assert truncate(row, SamplingParams(top_k=9)) is None


FULL_VOCAB = 49_152


def full_rows() -> dict[str, NDArray[np.float32]]:
    rng = np.random.default_rng(5)
    normal = rng.normal(size=FULL_VOCAB)
    peaky = normal.copy()
    peaky[[17, 40_000]] += 30.0
    masked = normal * 3
    masked[rng.random(FULL_VOCAB) < 0.9] = -np.inf
    rows = {
        "flat": np.zeros(FULL_VOCAB),
        "nearly flat": normal * 0.01,
        "normal": normal,
        "like a model": normal * 2.5,
        "peaky": peaky,
        "one step down": np.where(np.arange(FULL_VOCAB) < 5, 0.0, -4.0),
        "just below the first try": np.where(np.arange(FULL_VOCAB) < 5, 0.0, -4.000001),
        "steep": -np.arange(FULL_VOCAB) / 100.0,
        "mostly masked": masked,
    }
    return {name: row.astype(np.float32) for name, row in rows.items()}


FULL_ROWS = full_rows()
every_full_row = pytest.mark.parametrize("row", FULL_ROWS.values(), ids=FULL_ROWS.keys())


@every_full_row
@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.0])
def test_drawing_few_logarithms_gives_the_token_that_drawing_all_gives(
    row: NDArray[np.float32], temperature: float
) -> None:
    sampler = TokenSampler(SamplingParams(temperature=temperature, seed=3), ())
    tokens = spread(np.arange(FULL_VOCAB))
    scaled = (row - row.max()) / np.float32(temperature)
    for position in range(40):
        brute = int((scaled + gumbel(hash_noise(3, position, tokens))).argmax())
        assert sampler.sample(row, position) == brute


@every_full_row
@pytest.mark.parametrize("top_k", [1, 2, 50, 1000, FULL_VOCAB - 1])
def test_top_k_of_the_full_vocabulary_equals_sorting_it(
    row: NDArray[np.float32], top_k: int
) -> None:
    ranked = np.argsort(-row, kind="stable")[:top_k]
    kept = truncate(row - row.max(), SamplingParams(top_k=top_k))
    np.testing.assert_array_equal(kept, np.sort(ranked))


@every_full_row
@pytest.mark.parametrize("top_p", [0.01, 0.5, 0.9, 0.999])
def test_top_p_of_the_full_vocabulary_equals_sorting_it(
    row: NDArray[np.float32], top_p: float
) -> None:
    scaled = row - row.max()
    ranked = np.argsort(-scaled, kind="stable")
    mass = np.cumsum(np.exp(scaled[ranked]), dtype=np.float64)
    size = int(np.searchsorted(mass, top_p * mass[-1])) + 1
    kept = truncate(scaled, SamplingParams(top_p=top_p))
    assert kept is not None
    assert abs(kept.size - size) <= FULL_VOCAB * 1e-5  # sums in another order round otherwise
    np.testing.assert_array_equal(kept, np.sort(ranked[: kept.size]))


def greedy_after(
    logits: Sequence[float], params: Mapping[str, object], prompt: Sequence[int] = (),
    generated: Sequence[int] = (), masked: Sequence[int] = (),
) -> int:  # fmt: skip
    options = SamplingParams(temperature=0.0, **params)  # type: ignore[arg-type]
    sampler = sampler_after(options, prompt, generated, masked)
    return sampler.sample(np.array(logits, dtype=np.float32), len(prompt) + len(generated))


def test_ties_take_the_lowest_id() -> None:
    assert greedy_after([0.0, 2.0, 1.0, 2.0, 2.0], {}) == 1
    assert greedy_after([0.0, 2.0, 1.0, 2.5, 2.0], {"presence_penalty": 0.5}, (), (3,)) == 1


@pytest.mark.parametrize("penalty", ["presence_penalty", "frequency_penalty"])
def test_openai_penalties_see_generated_tokens_only(penalty: str) -> None:
    logits = [0.0, 1.0]
    assert greedy_after(logits, {penalty: 1.5}, prompt=(1, 1, 1)) == 1
    assert greedy_after(logits, {penalty: 1.5}, prompt=(1,), generated=(1,)) == 0


def test_repetition_penalty_sees_prompt_and_generated_tokens_once_each() -> None:
    assert greedy_after([1.0, 1.5], {"repetition_penalty": 2.0}, prompt=(1,)) == 0
    assert greedy_after([1.0, 1.5], {"repetition_penalty": 2.0}, generated=(1,)) == 0
    assert greedy_after([1.0, 2.5], {"repetition_penalty": 2.0}, (1, 1), (1, 1)) == 1


def test_repetition_penalty_lowers_negative_logits_too() -> None:
    assert greedy_after([-3.0, -2.0], {"repetition_penalty": 2.0}, prompt=(1,)) == 0
    assert greedy_after([-3.0, -4.0], {"repetition_penalty": 0.5}, prompt=(1,)) == 1


def test_frequency_penalty_grows_with_the_count_and_presence_penalty_does_not() -> None:
    assert greedy_after([0.0, 2.25], {"frequency_penalty": 1.0}, generated=(1, 1)) == 1
    assert greedy_after([0.0, 2.25], {"frequency_penalty": 1.0}, generated=(1, 1, 1)) == 0
    assert greedy_after([0.0, 1.25], {"presence_penalty": 1.0}, generated=(1,) * 9) == 1


def test_negative_penalties_favour_what_was_said() -> None:
    assert greedy_after([0.5, 0.0], {"presence_penalty": -1.0}, generated=(1,)) == 1
    assert greedy_after([0.5, 0.0], {"frequency_penalty": -0.3}, generated=(1, 1)) == 1


def test_logit_bias_is_added_after_the_penalties() -> None:
    params = {"repetition_penalty": 2.0, "logit_bias": {1: 1.0}}
    assert greedy_after([1.75, 2.0], params, prompt=(1,)) == 1  # (2 + 1) / 2 would lose
    assert greedy_after([0.0, 5.0], {"logit_bias": {1: -100.0}}) == 0


def test_end_tokens_are_masked_until_min_tokens_were_generated() -> None:
    for num_generated, expected in ((0, 0), (1, 0), (2, 1), (3, 1)):
        token = greedy_after([0.0, 9.0], {"min_tokens": 2}, (0,), (0,) * num_generated, (1,))
        assert token == expected


def test_the_mask_beats_the_logit_bias() -> None:
    assert greedy_after([0.0, 9.0], {"min_tokens": 1, "logit_bias": {1: 100.0}}, masked=(1,)) == 0


def test_a_masked_token_is_never_drawn_however_flat_the_row() -> None:
    sampler = sampler_after(SamplingParams(temperature=2.0, min_tokens=1), masked=(0, 2))
    row = np.zeros(4, dtype=np.float32)
    assert {sampler.sample(row, position) for position in range(200)} == {1, 3}


@checked
@given(
    logits=LOGITS,
    params=PARAMS,
    before=st.lists(st.integers(0, 1), max_size=3),
    left=st.lists(st.integers(0, 1), max_size=3),
    right=st.lists(st.integers(0, 1), max_size=3),
)
def test_a_fork_and_its_origin_do_not_see_each_others_tokens(
    logits: list[float],
    params: SamplingParams,
    before: list[int],
    left: list[int],
    right: list[int],
) -> None:
    row = np.array(logits, dtype=np.float32)
    origin = sampler_after(params, (1,), before, (0,))
    fork = origin.fork()
    for token in left:
        origin.push(token)
    for token in right:
        fork.push(token)
    for sampler, after in ((origin, left), (fork, right)):
        alone = sampler_after(params, (1,), before + after, (0,))
        assume(max(reference_processed(logits, params, (1,), before + after, (0,))) > -1e8)
        assert [sampler.sample(row, t) for t in range(5)] == [
            alone.sample(row, t) for t in range(5)
        ]


def test_a_fork_counts_for_itself() -> None:
    row = np.array([0.0, 1.5], dtype=np.float32)
    params = SamplingParams(temperature=0.0, frequency_penalty=1.0)
    origin = sampler_after(params)
    fork = origin.fork()
    fork.push(1)
    fork.push(1)
    assert (origin.sample(row, 0), fork.sample(row, 0)) == (1, 0)
    origin.push(1)
    assert origin.sample(row, 0) == 1


def test_sampling_changes_no_state() -> None:
    sampler = sampler_after(SamplingParams(frequency_penalty=1.0, seed=8), (), (1,))
    row = np.zeros(50, dtype=np.float32)
    first = [sampler.sample(row, position) for position in range(30)]
    assert [sampler.sample(row, position) for position in reversed(range(30))] == first[::-1]


def test_a_read_only_row_is_sampled_under_every_option() -> None:
    row = np.zeros(8, dtype=np.float32)
    row.flags.writeable = False
    params = SamplingParams(
        presence_penalty=1.0, repetition_penalty=1.2, logit_bias={1: 1.0}, min_tokens=2, top_p=0.9
    )
    assert 0 <= sampler_after(params, (1,), (2,), (0,)).sample(row, 3) < 8


@pytest.mark.parametrize("temperature", [5e-324, 1e-300, 1e-46, 1e-40, 1e-20, 1e-6])
@pytest.mark.parametrize("options", [{}, {"top_k": 2}, {"top_p": 0.9}, {"min_p": 0.1}])
def test_a_vanishing_temperature_is_greedy(temperature: float, options: dict[str, float]) -> None:
    params = SamplingParams(temperature=temperature, **options)  # type: ignore[arg-type]
    row = np.array([0.0, -40.0, 3.0, 2.99], dtype=np.float32)
    assert {TokenSampler(params, ()).sample(row, position) for position in range(50)} == {2}


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({}, True),
        ({"top_k": 3, "top_p": 0.5, "min_p": 0.1, "seed": 4}, True),
        ({"min_tokens": 0}, True),
        ({"temperature": 0.1}, False),
        ({"presence_penalty": 0.1}, False),
        ({"frequency_penalty": 0.1}, False),
        ({"repetition_penalty": 1.1}, False),
        ({"logit_bias": {1: 1.0}}, False),
        ({"min_tokens": 1}, False),
    ],
)
def test_plain_greedy_is_what_the_argmax_alone_decides(
    params: dict[str, object], expected: bool
) -> None:
    options = SamplingParams(**{"temperature": 0.0, "masked_ids": (0,), **params})  # type: ignore[arg-type]
    assert TokenSampler(options, (1, 2)).is_plain_greedy is expected


def torch_log_softmax(row: NDArray[np.float32]) -> list[float]:
    import torch  # takes a second, which most tests here can do without

    values: list[float] = torch.log_softmax(torch.from_numpy(row).double(), -1).tolist()
    return values


@checked
@given(logits=LOGITS, num_top=st.integers(0, 20), data=st.data())
def test_log_probs_equal_those_of_torch(
    logits: list[float], num_top: int, data: st.DataObject
) -> None:
    token = data.draw(st.integers(0, len(logits) - 1))
    row = np.array(logits, dtype=np.float32)
    expected = torch_log_softmax(row)
    found = log_probs_of(row, token, num_top)
    assert found.token_id == token
    assert found.logprob == pytest.approx(expected[token], abs=1e-5, rel=1e-6)
    ranked = sorted(range(len(logits)), key=lambda i: (-row[i], i))[:num_top]
    assert [i for i, _ in found.top] == ranked
    assert [value for _, value in found.top] == pytest.approx(
        [expected[i] for i in ranked], abs=1e-5, rel=1e-6
    )


@every_full_row
def test_log_probs_of_the_full_vocabulary_equal_those_of_torch(row: NDArray[np.float32]) -> None:
    expected = torch_log_softmax(row)
    found = log_probs_of(row, 17, 20)
    assert found.logprob == pytest.approx(expected[17], abs=1e-5)
    assert [i for i, _ in found.top] == np.argsort(-row, kind="stable")[:20].tolist()
    assert [value for _, value in found.top] == pytest.approx(
        [expected[i] for i, _ in found.top], abs=1e-5
    )
