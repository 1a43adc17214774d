"""One truth: what runs on Kubernetes is ray_config.yaml with an overlay's values."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from manifests import K8S, OVERLAYS, ROOT, Rendered

from cluster.check import check_document
from cluster.cli import main
from cluster.serve_config import ServeConfigError, json_patch, merged, serve_config


@pytest.mark.parametrize("name", OVERLAYS)
def test_the_patch_of_an_overlay_is_what_its_values_make(name: str) -> None:
    """Byte for byte; `make render` writes it anew."""
    folder = K8S / "overlays" / name
    written = (folder / "serve-config.yaml").read_text(encoding="utf-8")
    assert written == json_patch(serve_config(folder / "values.yaml"))


def test_what_is_applied_is_what_the_values_make(overlay: Rendered) -> None:
    values = K8S / "overlays" / overlay.name / "values.yaml"
    assert overlay.serve_config == serve_config(values)
    assert check_document(overlay.serve_config) == []


def test_ray_config_reaches_every_overlay(overlay: Rendered) -> None:
    """Whatever no values file changes is as in ray_config.yaml."""
    base = yaml.safe_load((ROOT / "ray_config.yaml").read_text(encoding="utf-8"))
    (application,), (own,) = base["applications"], overlay.serve_config["applications"]
    assert own["import_path"] == application["import_path"]
    assert own["args"]["drafters"][:2] == application["args"]["drafters"]
    by_name = {deployment["name"]: deployment for deployment in own["deployments"]}
    for deployment in application["deployments"]:
        assert by_name[deployment["name"]]["user_config"] == deployment["user_config"]


def test_named_lists_are_merged_by_name_and_others_replaced() -> None:
    base = {"a": 1, "list": [1, 2], "named": [{"name": "x", "n": 1, "m": 2}, {"name": "y"}]}
    changes = {"list": [3], "named": [{"name": "z", "n": None}, {"name": "x", "n": 7}]}
    assert merged(base, changes) == {
        "a": 1,
        "list": [3],
        "named": [{"name": "x", "n": 7, "m": 2}, {"name": "y"}, {"name": "z"}],
    }


def test_null_takes_a_key_away() -> None:
    assert merged({"a": {"b": 1, "c": 2}}, {"a": {"b": None}}) == {"a": {"c": 2}}
    assert merged({}, {"a": {"b": None, "c": 1}}) == {"a": {"c": 1}}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("extends: values.yaml", "extends itself"),
        ("extends: nowhere.yaml", "cannot be read"),
        ("extends: [a]", "expected the path of a file"),
        ("- a", "no mapping of keys"),
        ("extends: CONFIG\nhttp_option: {}", "http_option: unknown key; did you mean"),
    ],
)
def test_what_makes_no_serve_config_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str, said: str
) -> None:
    values = tmp_path / "values.yaml"
    values.write_text(text.replace("CONFIG", str(ROOT / "ray_config.yaml")))
    with pytest.raises(ServeConfigError, match=said):
        serve_config(values)
    assert main(["render", str(values)]) == 1
    assert said in capsys.readouterr().err


def test_the_command_prints_a_serve_config(capsys: pytest.CaptureFixture[str]) -> None:
    values = K8S / "overlays" / "dev" / "values.yaml"
    assert main(["render", str(values)]) == 0
    assert yaml.safe_load(capsys.readouterr().out) == serve_config(values)
