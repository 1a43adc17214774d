"""What drafters are judged on: the target's answers to prompts that nothing trains on.

Of each of our domains, and of corpora of one's own, whose held-out prompts the target answers anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count, islice

import torch
from tqdm import tqdm

from training import domains
from training.corpus import Corpus, CorpusError, Text
from training.synthesise import Job, Writer

_FIRST_PROMPT = 1_000_000  # far from those that corpora begin with
Texts = Mapping[str, list[Text]]


@dataclass(frozen=True, slots=True)
class Size:
    """How much to judge by: prompts of each domain, tokens of each answer."""

    num_prompts: int
    num_tokens: int
    num_coupling_positions: int
    num_rule_texts: int


FULL = Size(12, 128, 300, 3)
QUICK = Size(2, 24, 24, 1)


def held_out_texts(
    writer: Writer, temperature: float, size: Size, corpora: Sequence[Corpus] = ()
) -> Texts:
    """The target's answers by domain, all written together; raises CorpusError."""
    prompts = {name: _of_templates(writer, name) for name in domains.names()}
    for corpus in corpora:
        domain = corpus.recipe.domain
        if any(other.recipe.domain == domain for other in corpora if other is not corpus):
            raise CorpusError(f"{corpus.folder}: it is not the only one of domain {domain}")
        prompts[domain] = _of_corpus(writer, corpus)
    jobs = {
        name: [
            Job(prompt, temperature, _FIRST_PROMPT + i, size.num_tokens)
            for i, prompt in enumerate(islice(found, size.num_prompts))
        ]
        for name, found in prompts.items()
    }
    with tqdm(desc=f"answers at temperature {temperature:g}: tokens", unit="") as progress:
        written = iter(writer.write([job for each in jobs.values() for job in each], progress))
    texts: dict[str, list[Text]] = {name: [] for name in jobs}
    for name, asked in jobs.items():
        for job in asked:
            tokens, states = next(written)
            if len(tokens) - len(job.prompt) > 1:
                text = Text(name, tokens, len(job.prompt), temperature, job.seed, states)
                texts[name].append(text)
    return texts


def of_domain(texts: Texts, domain: str) -> list[Text]:
    """Those of a drafter's domain, or all where there is none of it."""
    return texts.get(domain) or [text for found in texts.values() for text in found]


def _of_templates(writer: Writer, name: str) -> Iterator[list[int]]:
    """Prompts of a domain that no corpus trains on, without end."""
    domain = domains.load_domain(name)
    for index in count(_FIRST_PROMPT):
        prompt = writer.prompt_of(({"role": "user", "content": domain.prompt(index)},))
        if Text(name, prompt, len(prompt), 0.0, index, torch.zeros(0)).is_held_out:
            yield prompt


def _of_corpus(writer: Writer, corpus: Corpus) -> Iterator[list[int]]:
    """Each held-out prompt once; there is at least one."""
    corpus.refuse_other_target(writer.target.identity)
    asked = (text.tokens[: text.num_prompt_tokens] for text in corpus.texts() if text.is_held_out)
    found = dict.fromkeys(tuple(prompt) for prompt in asked)
    if not found:
        raise CorpusError(f"{corpus.folder}: no held-out texts; synthesise more")
    return map(list, found)
