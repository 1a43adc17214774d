"""Any number of different prompts from a seed: the same seed and count give the same prompts.

Short and long (about 8 to 400 tokens), questions, lists, tables, code, several languages and
scripts, text to repeat. Every ninth asks again about an earlier prompt's beginning, so that
prefixes are shared.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

_TOPICS = (
    "bees", "tides", "violins", "bread", "glaciers", "chess", "bridges", "maps", "salt", "owls",
    "printing", "comets", "bicycles", "silk", "lighthouses", "volcanoes", "tea", "clocks",
    "rivers", "canals", "mushrooms", "kites", "radio", "paper", "coral", "windmills", "honey",
)  # fmt: skip
_PLACES = (
    "Lisbon", "Kraków", "Ōsaka", "Reykjavík", "Quito", "Tromsø", "Nairobi", "Perth", "São Luís",
)  # fmt: skip
_NAMES = ("Ada", "Björn", "Chidi", "Dolores", "Émile", "Fatima", "Göran", "Hana", "Ilse", "João")
_VERBS = ("measure", "sort", "count", "merge", "filter", "print", "parse", "group", "rotate")
_THINGS = ("orders", "words", "rows", "points", "dates", "edges", "prices", "files", "scores")
_FOREIGN = (
    "Erkläre kurz, was {topic} mit {place} zu tun haben könnte.",
    "Écris trois phrases sur {topic} et {place}.",
    "Escribe una carta breve de {name} sobre {topic}.",
    "Расскажи о городе {place} в двух предложениях.",  # noqa: RUF001
    "用一句话介绍{place}。",
    "{place}について短く教えてください。",
    "اكتب جملة واحدة عن {place}.",
    "Πες μου κάτι για {topic} — {name} 🙂",  # noqa: RUF001
)
_FACTS = (
    "In {year} {name} travelled to {place} to learn about {topic}.",
    "The museum of {place} owns {number} pieces about {topic}, most of them gifts of {name}.",
    "{name} wrote down {number} observations and lost half of them on the way home.",
    "Nobody in {place} had seen {topic} before {year}, and many did not believe in them.",
    "The price of {topic} rose from {number} to {year} crowns within a single winter.",
    "“It is not the {topic},” said {name}, “it is the weather of {place}.”",
)


class _Words:
    """Fills templates with random words."""

    def __init__(self, source: random.Random) -> None:
        self.source = source

    def fill(self, template: str) -> str:
        pick = self.source.choice
        return template.format(
            topic=pick(_TOPICS),
            place=pick(_PLACES),
            name=pick(_NAMES),
            verb=pick(_VERBS),
            thing=pick(_THINGS),
            number=self.source.randrange(2, 999),
            year=self.source.randrange(1500, 2100),
        )

    def passage(self, least: int, most: int) -> str:
        num_sentences = self.source.randint(least, most)
        return " ".join(self.fill(self.source.choice(_FACTS)) for _ in range(num_sentences))


def _question(words: _Words) -> str:
    asks = (
        "What are {topic}?",
        "Why did {name} move to {place} in {year}?",
        "Compare {topic} in {place} with {topic} in {place}.",
        "Tell a story about {name}, {number} {topic} and a journey to {place}.",
        "Give {name} some advice about {topic}. Use at most {number} words.",
    )
    return words.fill(words.source.choice(asks))


def _sum(words: _Words) -> str:
    asks = (
        "Compute {number} + {year} * {number}. Show each step.",
        "{name} buys {number} {thing} at {number} cents each. What does {name} pay?",
        "Is {year} divisible by {number}? Explain.",
        "Write the first numbers of the sequence {number}, {number}, {year}, ...",
    )
    return words.fill(words.source.choice(asks))


def _code(words: _Words) -> str:
    body = "\n".join(
        words.fill("    {thing}_{number} = {verb}({thing}, {number})")
        for _ in range(words.source.randint(1, 8))
    )
    thing = words.source.choice(_THINGS)
    head = words.fill(f"def {{verb}}_{thing}({thing}, limit={{number}}):")
    ask = words.source.choice(("Explain", "Document", "Test", "Print again, with type hints,"))
    return f"{ask} this function:\n\n```python\n{head}\n{body}\n    return {thing}\n```"


def _list(words: _Words) -> str:
    mark = words.source.choice(("- ", "* ", "1. ", "| ", "[ ] ", "\t"))
    template = words.source.choice(("{name}: {number} {thing}", "{topic}, {place}, {year}"))
    items = "\n".join(mark + words.fill(template) for _ in range(words.source.randint(3, 14)))
    return f"{words.source.choice(('Sort', 'Continue', 'Reverse', 'Copy'))} this list:\n{items}"


def _repeat(words: _Words) -> str:
    ask = words.source.choice(("Repeat", "Correct", "Shorten", "Translate into French", "Copy"))
    return f"{ask}: {words.passage(1, 14)}"


def _foreign(words: _Words) -> str:
    return words.fill(words.source.choice(_FOREIGN)) + words.fill(" ({number})")


def _json(words: _Words) -> str:
    rows = ", ".join(
        words.fill('{{"{thing}": {number}, "city": "{place}"}}')
        for _ in range(words.source.randint(1, 7))
    )
    return words.fill("Add {number} to every {thing} of ") + f"[{rows}]"


_KINDS: Sequence[Callable[[_Words], str]] = (
    _question, _sum, _code, _list, _repeat, _foreign, _json, _repeat,
)  # fmt: skip
_SHARED_EVERY = 9  # every so many prompts, one begins like an earlier one


def varied_prompts(num_prompts: int, seed: int) -> list[str]:
    """`num_prompts` different prompts; a longer run with the same seed begins with them too."""
    words = _Words(random.Random(seed))
    prompts: dict[str, None] = {}
    while len(prompts) < num_prompts:
        if len(prompts) % _SHARED_EVERY == _SHARED_EVERY - 1:
            earlier = words.source.choice(list(prompts))
            prompt = f"{earlier}\n\n{words.passage(0, 3)}\n{_question(words)}"
        else:
            prompt = words.source.choice(_KINDS)(words)
        prompts.setdefault(prompt)
    return list(prompts)
