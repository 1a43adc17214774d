"""One truth: what runs on Kubernetes is ray_config.yaml with an overlay's values."""

from __future__ import annotations

from collections.abc import Iterator
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
    assert check_document(overlay.serve_config, is_for_pods=True) == []


def leaves(node: object, path: Path = Path()) -> Iterator[tuple[Path, object]]:
    """Of a document, by their keys and names."""
    if isinstance(node, list) and all(isinstance(each, dict) and "name" in each for each in node):
        node = {each["name"]: each for each in node}
    if isinstance(node, dict):
        for key, value in node.items():
            yield from leaves(value, path / str(key))
    else:
        yield path, node


def unchanged(values: Path) -> dict[Path, object]:
    """Leaves of ray_config.yaml that neither `values` nor what it extends says anything of."""
    document = yaml.safe_load(values.read_text(encoding="utf-8"))
    if "extends" not in document:
        return dict(leaves(document))
    below = unchanged(values.parent / document.pop("extends"))
    said = {path for path, _ in leaves(document) if path.name != "name"}
    changed = {path.parent if path.name == "$patch" else path for path in said}
    return {
        path: value
        for path, value in below.items()
        if not any(path.is_relative_to(each) or each.is_relative_to(path) for each in changed)
    }


def check_reach(values: Path) -> int:
    """How many leaves are as in ray_config.yaml, all of which must be."""
    found, expected = dict(leaves(serve_config(values))), unchanged(values)
    assert {path: found.get(path) for path in expected} == expected
    return len(expected)


@pytest.mark.parametrize("name", OVERLAYS)
def test_ray_config_reaches_every_overlay(name: str) -> None:
    """Whatever no values file changes is as in ray_config.yaml."""
    assert check_reach(K8S / "overlays" / name / "values.yaml") > 20


def test_it_still_reaches_an_overlay_that_turns_speculation_off(tmp_path: Path) -> None:
    """As the manual says; nothing else is another for that."""
    values, off = K8S / "overlays" / "prod" / "values.yaml", tmp_path / "values.yaml"
    off.write_text(
        f"extends: {values}\napplications: [{{name: hedgerow, deployments: "
        "[{name: Target, user_config: {speculation: off}}]}]"
    )
    assert check_reach(off) == check_reach(values) - 1


def test_a_trained_drafter_whose_folder_is_in_the_pods_alone_can_be_rendered(
    tmp_path: Path,
) -> None:
    values = tmp_path / "values.yaml"
    gpu, drafters = K8S / "overlays" / "gpu" / "values.yaml", "hedgerow, args: {drafters: "
    text = f"extends: {gpu}\napplications: [{{name: {drafters}[%s]}}}}]"
    values.write_text(text % "{name: trained, kind: head, path: /models/code-head}")
    drafter = serve_config(values)["applications"][0]["args"]["drafters"][-1]
    assert drafter == {"name": "trained", "kind": "head", "path": "/models/code-head"}
    assert "has no config.json" in str(check_document(serve_config(values))[0])
    values.write_text((text % f"{{name: trained, kind: head, path: {tmp_path}}}").replace(
        "args: {", "args: {target: {model: smollm2-135m-instruct}, "
    ))  # fmt: skip
    with pytest.raises(ServeConfigError, match="has no config"):
        serve_config(values)


def test_named_lists_are_merged_by_name_and_others_replaced() -> None:
    base = {"a": 1, "list": [1, 2], "named": [{"name": "x", "n": 1, "m": 2}, {"name": "y"}]}
    changes = {"list": [3], "named": [{"name": "z", "n": None}, {"name": "x", "n": 7}]}
    assert merged(base, changes) == {
        "a": 1,
        "list": [3],
        "named": [{"name": "x", "n": 7, "m": 2}, {"name": "y"}, {"name": "z"}],
    }


def test_an_entry_of_a_named_list_is_taken_away_by_name() -> None:
    base = {"drafters": [{"name": "a", "kind": "suffix"}, {"name": "b"}]}
    gone = {"name": "a", "$patch": "delete"}
    assert merged(base, {"drafters": [gone, {"name": "c"}]}) == {
        "drafters": [{"name": "b"}, {"name": "c"}]
    }
    with pytest.raises(ServeConfigError, match="there is no 'x'"):
        merged(base, {"drafters": [{"name": "x", "$patch": "delete"}]})


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
