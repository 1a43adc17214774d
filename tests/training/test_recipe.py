"""What the recipe is asked for and cannot do is refused before any work."""

from __future__ import annotations

from pathlib import Path

import pytest

from training import recipe


def test_a_folder_of_prompts_that_is_not_there_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PROMPTS", str(tmp_path / "nowhere"))
    with pytest.raises(SystemExit, match="2"):
        recipe.main([])
    assert f"PROMPTS={tmp_path / 'nowhere'}: no such folder" in capsys.readouterr().err


def test_a_domain_that_the_recipe_does_not_know_is_refused(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit, match="2"):
        recipe.main(["code", "sql"])
    assert "sql: expected some of code, math, chat, edit" in capsys.readouterr().err
