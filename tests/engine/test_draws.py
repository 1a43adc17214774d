"""What is drawn with a device's help is what the host alone draws, however near scores are."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from kernels import search_by_rows
from plain_answers import assert_same, mixed_requests
from tiny_models import run_all, tiny_engine
from tiny_requests import drafter

from engine.draws import MARGIN, draw_rows
from engine.request import SamplingParams
from engine.runner import Logits
from engine.sampling import TokenSampler
from policies.fixed import FixedSelector

VOCAB = 300


def logits(seed: int, num_rows: int, scale: float) -> torch.Tensor:
    """In bfloat16, so that many are equal."""
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(num_rows, VOCAB, generator=generator) * scale).bfloat16()


def sampler(**options: Any) -> TokenSampler:
    return TokenSampler(SamplingParams(**{"temperature": 1.0, "seed": 5, **options}), ())


@pytest.mark.parametrize("temperature", [1e-40, 1e-3, 0.3, 1.0, 2.0])
@pytest.mark.parametrize("scale", [0.0, 1.0, 5.0, 100.0])
def test_a_token_found_is_the_hosts(scale: float, temperature: float) -> None:
    rows = logits(1, 300, scale)
    draws = [(sampler(temperature=temperature, seed=i % 7), 3 * i) for i in range(300)]
    found = draw_rows(rows, draws, search_by_rows)
    hosts = rows.float().numpy()
    assert len(found) > 200
    for row, token in found.items():
        drawing, position = draws[row]
        assert token == drawing.sample(hosts[row], position)


def test_errors_of_the_device_would_be_noticed_without_the_margin(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("engine.draws.MARGIN", 0.0)
    rows = logits(1, 4000, 1.0)
    draws = [(sampler(), position) for position in range(4000)]
    found = draw_rows(rows, draws, search_by_rows)
    hosts = rows.float().numpy()
    assert any(token != sampler().sample(hosts[row], row) for row, token in found.items())


def test_what_is_near_within_a_chunk_is_left_to_the_host() -> None:
    rows = torch.full((1, 32), -50.0)
    rows[0, 3] = 0.0
    drawing = sampler()
    assert draw_rows(rows, [(drawing, 8)], search_by_rows) == {0: 3}
    noise = _noise(drawing, 8)
    rows[0, 7] = rows[0, 3] + noise[3] - noise[7] + MARGIN / 3
    assert draw_rows(rows, [(drawing, 8)], search_by_rows) == {}
    rows[0, 7], rows[0, 20] = -50.0, noise[3] - noise[20] + MARGIN / 9
    assert draw_rows(rows, [(drawing, 8)], search_by_rows) == {0: 20}


def _noise(drawing: TokenSampler, position: int) -> list[float]:
    from engine.noise import gumbel, hash_noise, spread

    hashes = hash_noise(drawing.params.seed, position, spread(np.arange(32)))
    return [float(value) for value in gumbel(hashes)]


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_broken_row_is_left_to_the_host(value: float) -> None:
    rows = logits(3, 2, 1.0).float()
    rows[0, 5] = value
    with np.errstate(invalid="ignore"):
        assert set(draw_rows(rows, [(sampler(), 4)] * 2, search_by_rows)) == {1}
    rows[1] = -math.inf
    with np.errstate(invalid="ignore"):
        assert draw_rows(rows, [(sampler(), 4)] * 2, search_by_rows) == {}


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": 0.0},
        {"top_k": 5},
        {"top_p": 0.9},
        {"min_p": 0.1},
        {"presence_penalty": 0.1},
        {"frequency_penalty": -0.1},
        {"repetition_penalty": 1.1},
        {"logit_bias": {3: 1.0}},
        {"min_tokens": 3, "masked_ids": (2,)},
        {"logprobs": 0},
    ],
)
def test_whatever_else_makes_a_token_leaves_it_to_the_host(options: dict[str, Any]) -> None:
    assert sampler().is_pure
    assert not sampler(**options).is_pure
    rows = logits(4, 1, 5.0)
    assert draw_rows(rows, [(sampler(**options), 4)], search_by_rows) == {}


def test_an_engine_that_draws_ahead_says_what_it_says_without(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    num_found = 0

    def count(self: Logits, draws: Any) -> None:
        nonlocal num_found
        self._drawn = draw_rows(self._rows, draws, search_by_rows)
        num_found += len(self._drawn)

    monkeypatch.setattr(Logits, "draw_ahead", count)
    engine = tiny_engine([drafter("model")])
    engine.use_selectors(FixedSelector("model", 5), {})
    requests = mixed_requests(30)
    emissions = run_all(engine, requests)
    for asked in requests:
        assert_same(emissions[asked.sequence_id], asked, "llama")
    assert num_found > 50
