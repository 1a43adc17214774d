"""A drafter's model card: what it is for, what it was made of, how good it is."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.drafters.folder import DrafterFolder, find_folder
from engine.model_files import EMBEDDED_MODEL

RECIPE = "recipe.json"
Figures = Mapping[str, Mapping[str, float]]

_LICENCE = "Apache-2.0, as the target's"
_CARD = """# {name}

A drafter of kind `{kind}` for {target}, domain {domain}. It guesses tokens that the target then
verifies: it can make answers faster, and changes none. Refused for any other target.

- **Licence**: {licence}.
- **Data**: {data}. It learnt from the target's own answers alone.
- **Prompts** that these answer: {prompts}.
- **Recipe**: {recipe}
- **Size**: {num_layers} layer(s) of {hidden_size}, {size:.1f} MB in 16 bits{head}.
- **Limits**: drafts {num_ids} ids only; less good outside of its domain, and on longer texts
  than those it saw.

## Mean acceptance length, draft length {draft_length}

Held-out prompts, bonus token included; plain decoding is 1.00.

| | {domains} |
|---|{rule}|
{rows}
"""


def write_recipe(folder: Path, facts: Mapping[str, object]) -> None:
    """Keeps what a drafter was made of beside it."""
    staged = folder / f"{RECIPE}.new"
    staged.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    os.replace(staged, folder / RECIPE)


def read_recipe(folder: Path) -> dict[str, Any]:
    """What a drafter's folder says that it was made of; empty if it says nothing."""
    path = find_folder(folder) / RECIPE
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found


def write_card(drafter: DrafterFolder, figures: Figures, draft_length: int) -> Path:
    """`figures`: by way of sampling, then by domain. Written to README.md in the folder."""
    card, facts = drafter.card, read_recipe(drafter.path)
    is_ours = card.target.name == EMBEDDED_MODEL
    domains = sorted({domain for row in figures.values() for domain in row})
    rows = [
        f"| {name} | " + " | ".join(f"{row[d]:.2f}" if d in row else "-" for d in domains) + " |"
        for name, row in figures.items()
    ]
    num_blocks = card.num_acceptance_blocks
    text = _CARD.format(
        name=drafter.path.name,
        kind=card.kind,
        target=card.target.name,
        domain=card.domain,
        licence=_LICENCE if is_ours else "not stated; the target's and the prompts' bear on it",
        prompts="; ".join(facts.get("licences", ())) or "not recorded",
        data=facts.get("data", "not recorded"),
        recipe=facts.get("recipe", "not recorded"),
        num_layers=card.shape.num_layers,
        hidden_size=card.shape.hidden_size,
        size=sum(file.stat().st_size for file in drafter.path.glob("*.safetensors")) / 1e6,
        head="" if num_blocks is None else f", with an acceptance head of {num_blocks} block(s)",
        num_ids=facts.get("num_ids", "some"),
        draft_length=draft_length,
        domains=" | ".join(domains),
        rule="|".join("---" for _ in domains),
        rows="\n".join(rows),
    )
    found = drafter.path / "README.md"
    found.write_text(text, encoding="utf-8")
    return found
