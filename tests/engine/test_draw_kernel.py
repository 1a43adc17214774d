"""The kernel that draws has the noise of engine.noise, and is off by less than is allowed."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
import torch
from kernels import DEVICE, needs_triton

from engine.draws import MARGIN, _numbers_of, draw_rows
from engine.noise import gumbel, hash_noise, spread
from engine.request import SamplingParams
from engine.sampling import TokenSampler

pytestmark = needs_triton
if find_spec("triton"):
    import triton
    import triton.language as tl

    from engine.draw_kernel import gumbel_of

    @triton.jit  # type: ignore[untyped-decorator]
    def noise_of(hashes: Any, out: Any, SIZE: tl.constexpr) -> None:
        at = tl.arange(0, SIZE)
        tl.store(out + at, gumbel_of(tl.load(hashes + at).to(tl.uint32)))


VOCAB = 2500  # three chunks, the last not full
BOUND = 3e-5  # of engine.draws


def search(rows: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
    from engine.draw_kernel import best_of_chunks

    return best_of_chunks(rows, draws)


def sampler(seed: int, temperature: float) -> TokenSampler:
    return TokenSampler(SamplingParams(temperature=temperature, seed=seed), ())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_what_it_finds_is_the_best_of_every_chunk(dtype: torch.dtype) -> None:
    torch.manual_seed(2)
    rows = (torch.randn(3, VOCAB) * 4).to(dtype)
    draws = [(sampler(-9, 0.7), 0), (sampler(2**64 - 1, 1.3), 70_000), (sampler(4, 0.01), 12)]
    numbers = torch.tensor([_numbers_of(row, *draw) for row, draw in enumerate(draws)])
    found = search(rows.to(DEVICE), numbers.to(DEVICE)).cpu().numpy()
    assert found.shape == (3, 3, 5)
    for row, (drawing, position) in enumerate(draws):
        logits = rows[row].float().numpy()
        noise = gumbel(hash_noise(drawing.params.seed, position, spread(np.arange(VOCAB))))
        scores = (logits - logits.max()) / drawing.divisor + noise
        for chunk, (best, following, logit, token, peak) in enumerate(found[row].tolist()):
            part = scores[chunk * 1024 : chunk * 1024 + 1024]
            if part.max() > -4.0:
                assert abs(best - part.max()) < BOUND
            assert int(token) == chunk * 1024 + part.argmax()
            assert abs(following - np.sort(part)[-2]) < max(BOUND, 1e-5 * abs(following))
            assert (logit, peak) == (logits[int(token)], logits.max())


def test_all_that_it_is_off_by_is_far_below_the_margin() -> None:
    """Of noise: at the ends, at the seam of the two forms, and anywhere."""
    seam = 2**32 // 16
    edges = [0, 1, 2, seam - 1, seam, seam + 1, 2**31, 2**32 - 2, 2**32 - 1]
    rng = np.random.default_rng(3)
    anywhere = rng.integers(0, 2**32, 2**15 - len(edges) - 1000)
    small = (2.0 ** rng.uniform(0, 32, 1000)).astype(np.int64)
    hashes = np.concatenate([edges, anywhere, small])
    out = torch.empty(len(hashes), dtype=torch.float32, device=DEVICE)
    noise_of[(1,)](torch.from_numpy(hashes).to(DEVICE), out, SIZE=len(hashes))
    errors = np.abs(out.cpu().numpy() - gumbel(hashes.astype(np.uint32)))
    assert errors.max() < BOUND / 2
    assert BOUND < MARGIN / 60


def test_it_draws_what_the_host_draws() -> None:
    torch.manual_seed(6)
    rows = (torch.randn(24, VOCAB) * 3).bfloat16()
    draws = [(sampler(i, 0.2 + i / 15), 100 * i) for i in range(24)]
    found = draw_rows(rows.to(DEVICE), draws, search)
    assert len(found) > 20
    for row, token in found.items():
        drawing, position = draws[row]
        assert token == drawing.sample(rows[row].float().numpy(), position)
