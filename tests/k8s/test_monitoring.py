"""Alerts and dashboard ask for metrics that there are, and Prometheus finds the pods."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from manifests import K8S, ROOT, Rendered, rendered, selects

from deployments.metric_families import every_family
from deployments.metrics import PREFIX
from deployments.metrics_export import PREFIX as EXPORTED

MONITORED = ["gpu", "prod"]
METRIC = re.compile(r"hedgerow:\w+|\bray_\w+")
NAMES = {f"{PREFIX}{name}" for family in every_family() for name in family.shown_names}
LABELS = {f"{PREFIX}{name}": set(f.labels) for f in every_family() for name in f.shown_names}


def dashboard() -> dict[str, Any]:
    path = K8S / "components" / "monitoring" / "hedgerow.json"
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def panel_queries() -> Iterator[tuple[str, str]]:
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]


def rules() -> list[dict[str, Any]]:
    (manifest,) = rendered("prod").of("PrometheusRule").values()
    return [rule for group in manifest["spec"]["groups"] for rule in group["rules"]]


def queries() -> list[str]:
    return [expr for _, expr in panel_queries()] + [rule["expr"] for rule in rules()]


def test_every_query_names_metrics_that_there_are() -> None:
    assert len(queries()) > 50
    for query in queries():
        named = METRIC.findall(query)
        assert named, query
        assert [name for name in named if name not in NAMES] == []


def test_every_query_groups_by_labels_that_its_metrics_have() -> None:
    """A sum by a label that is not there is the sum of everything."""
    for query in queries():
        for by, inner in re.findall(r"by \(([\w, ]+)\) \((?:rate\()?(hedgerow:\w+)", query):
            wanted = set(by.split(", ")) - {"le"}
            assert wanted <= LABELS[inner], query


def test_every_metric_is_on_the_dashboard() -> None:
    shown = {name for _, query in panel_queries() for name in METRIC.findall(query)}
    for family in every_family():
        names = {f"{PREFIX}{name}" for name in family.shown_names}
        assert names & shown, family.name


def test_no_panel_divides_by_what_is_0_while_nothing_happens() -> None:
    """0 / 0 is no number, which looks like no data. There is no mean of no rounds."""
    divisor = re.compile(r" / (?:(?:on|ignoring) \(\w+\) group_left \(\) )?(\w+)")
    found = [(title, name) for title, query in panel_queries() for name in divisor.findall(query)]
    assert len(found) > 8
    for title, name in found:
        assert name == "clamp_min" or title.startswith("Mean acceptance length"), title


def test_parentheses_are_closed() -> None:
    for query in queries():
        depth = 0
        for letter in query:
            depth += {"(": 1, ")": -1}.get(letter, 0)
            assert depth >= 0
        assert depth == 0


def test_every_alert_says_how_bad_it_is_and_what_it_is_and_the_manual_what_to_do() -> None:
    manual = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    for rule in rules():
        assert rule["labels"]["severity"] in ("critical", "warning", "info")
        assert set(rule["annotations"]) == {"summary"}
        assert f"`{rule['alert']}`" in manual
    named = {rule["alert"] for rule in rules()}
    assert set(re.findall(r"`(Hedgerow[A-Z]\w+)`", manual)) == named


def test_the_dashboard_reaches_grafana() -> None:
    for overlay in map(rendered, MONITORED):
        found = overlay.of("ConfigMap")["hedgerow-dashboard"]
        assert found["metadata"]["labels"]["grafana_dashboard"] == "1"
        assert json.loads(found["data"]["hedgerow.json"]) == dashboard()


def test_panels_do_not_overlap_and_have_numbers_of_their_own() -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in dashboard()["panels"]:
        place = panel["gridPos"]
        for x in range(place["x"], place["x"] + place["w"]):
            for y in range(place["y"], place["y"] + place["h"]):
                assert (x, y) not in taken, panel["title"]
                taken[x, y] = panel["title"]
    ids = [panel["id"] for panel in dashboard()["panels"]]
    assert len(set(ids)) == len(ids)


@pytest.fixture(params=MONITORED)
def monitored(request: pytest.FixtureRequest) -> Rendered:
    return rendered(request.param)


def test_prometheus_finds_every_pod_of_ray_and_a_port_to_ask(monitored: Rendered) -> None:
    (monitor,) = monitored.of("PodMonitor").values()
    spec = monitor["spec"]
    for template in monitored.templates():
        is_ray = template.owner == "RayService"
        assert selects(spec["selector"], template.labels) == is_ray
        if is_ray:
            ports = {port["name"] for port in template.spec["containers"][0]["ports"]}
            assert spec["podMetricsEndpoints"][0]["port"] in ports


def test_what_ray_exports_gets_the_name_that_metrics_has(monitored: Rendered) -> None:
    (monitor,) = monitored.of("PodMonitor").values()
    rule = monitor["spec"]["podMetricsEndpoints"][0]["metricRelabelings"][0]
    assert rule["sourceLabels"] == ["__name__"]
    assert rule["targetLabel"] == "__name__"
    replacement = rule["replacement"].replace("$1", r"\1")
    for name in NAMES:
        exported = f"ray_{EXPORTED}{name.removeprefix(PREFIX)}"
        assert re.fullmatch(rule["regex"], exported)
        assert re.sub(rule["regex"], replacement, exported) == name
