"""The hand-written sets are complete, and generated prompts are many, different and repeatable."""

from __future__ import annotations

from benchmarks.prompts import DOMAINS, load_prompts
from benchmarks.varied_prompts import varied_prompts


def test_every_domain_has_its_own_prompts() -> None:
    texts = [prompt.text for domain in DOMAINS for prompt in load_prompts(domain)]
    assert len(texts) == len(set(texts)) >= 40
    assert all(len(load_prompts(domain)) >= 8 for domain in DOMAINS)


def test_edit_prompts_hold_the_text_to_edit() -> None:
    assert all(len(prompt.text.split()) > 30 for prompt in load_prompts("edit"))


def test_generated_prompts_differ_from_each_other() -> None:
    prompts = varied_prompts(1000, seed=1)
    assert len(set(prompts)) == 1000
    assert all(prompt.strip() for prompt in prompts)


def test_a_seed_gives_the_same_prompts_again() -> None:
    assert varied_prompts(50, seed=3) == varied_prompts(80, seed=3)[:50]
    assert varied_prompts(50, seed=3) != varied_prompts(50, seed=4)


def test_generated_prompts_are_short_and_long_and_of_many_kinds() -> None:
    prompts = varied_prompts(300, seed=1)
    lengths = sorted(len(prompt) for prompt in prompts)
    assert lengths[0] < 40
    assert lengths[-1] > 1000
    assert any("```python" in prompt for prompt in prompts)
    assert any("\n- " in prompt for prompt in prompts)
    assert any(ord(max(prompt)) > 0x3000 for prompt in prompts)


def test_some_generated_prompts_begin_like_others() -> None:
    prompts = varied_prompts(90, seed=1)
    assert sum(a != b and b.startswith(a) for a in prompts for b in prompts) >= 8
