"""docs/configuration.md is what the schema says."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.cli import main
from cluster.config import ClusterConfig, Section
from cluster.reference import configuration_page
from cluster.settings import DEPLOYMENT_SETTINGS

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"


def test_the_page_is_that_of_the_schema(capsys: pytest.CaptureFixture[str]) -> None:
    """`make render` writes it anew."""
    assert main(["reference"]) == 0
    assert PAGE.read_text(encoding="utf-8") == capsys.readouterr().out


@pytest.mark.parametrize("model", [ClusterConfig, *DEPLOYMENT_SETTINGS.values()])
def test_every_key_has_a_row(model: type[Section]) -> None:
    rows = configuration_page().splitlines()
    for key in model.model_fields:
        assert any(row.startswith(f"| `{key}` | ") for row in rows)


@pytest.mark.parametrize(
    "row",
    [
        "| `num_gpus` | number, from 0 to 1,024 | `0` |",
        "| `numerics` | `fast`, `invariant` | `fast` |",
        "| `kind` | `prompt_lookup`, `suffix`, `model`, `head` | needed |",
        "| `lookups` | list of: text, a name, at least 1 entries at most 64 entries | needed |",
        "| `resources` | by name: number, from 0, at most 64 entries | none |",
        "| `stop_threshold` | number, above 0 below 1 | none |",
        "| `confidence` | `true` or `false` | `false` |",
        "| `selector` | one of those below | `name: survival` |",
        "### `selector: hedge`",
    ],
)
def test_a_row_says_what_is_allowed_and_what_is_if_nothing_is_said(row: str) -> None:
    assert row in configuration_page().splitlines()
