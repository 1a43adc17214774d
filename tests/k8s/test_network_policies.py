"""Network policies: what must be reached can be, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from manifests import COMPONENT, Manifest, Rendered, rendered, selects

PROMETHEUS = {"kubernetes.io/metadata.name": "monitoring"}
OPERATOR = {"kubernetes.io/metadata.name": "kuberay-operator"}
CLIENT = {"hedgerow.io/client": "true"}
DATA_PLANE_PORT = 40123  # any: ZeroMQ binds to a free one
RAY_PODS = ("head", "front", "target", "host")


def reaches(
    overlay: Rendered, source: Mapping[str, Any], target: Mapping[str, Any], port: int
) -> bool:
    """`source` and `target` are labels of a pod, or of a namespace under the key `namespace`."""
    return _is_let(overlay, source, target, port, "egress") and _is_let(
        overlay, target, source, port, "ingress"
    )


def _is_let(
    overlay: Rendered, pod: Mapping[str, Any], other: Mapping[str, Any], port: int, way: str
) -> bool:
    if "namespace" in pod:
        return True
    policies = [
        policy["spec"]
        for policy in overlay.of("NetworkPolicy").values()
        if selects(policy["spec"]["podSelector"], pod)
        and way.capitalize() in policy["spec"]["policyTypes"]
    ]
    rules = [rule for policy in policies for rule in policy.get(way, [])]
    return not policies or any(_fits(rule, way, other, port) for rule in rules)


def _fits(rule: Manifest, way: str, other: Mapping[str, Any], port: int) -> bool:
    if "ports" in rule and port not in [each["port"] for each in rule["ports"]]:
        return False
    peers = rule.get("to" if way == "egress" else "from")
    return peers is None or any(_is_peer(peer, other) for peer in peers)


def _is_peer(peer: Manifest, other: Mapping[str, Any]) -> bool:
    if "namespaceSelector" in peer:
        return "namespace" in other and selects(peer["namespaceSelector"], other["namespace"])
    return "namespace" not in other and selects(peer["podSelector"], other)


def pod(component: str) -> dict[str, Any]:
    return {COMPONENT: component}


def outside(labels: Mapping[str, str]) -> dict[str, Any]:
    return {"namespace": labels}


DNS = outside({"kubernetes.io/metadata.name": "kube-system"})
NEEDED = [
    *[(pod(a), pod(b), DATA_PLANE_PORT) for a in RAY_PODS for b in RAY_PODS],
    *[(pod(name), DNS, 53) for name in (*RAY_PODS, "redis-statistics")],
    (pod("front"), pod("redis-statistics"), 6379),
    (pod("front"), pod("redis-statistics"), 26379),
    (pod("redis-statistics"), pod("redis-statistics"), 6379),
    (pod("redis-statistics"), pod("redis-statistics"), 26379),
    (pod("front"), pod("redis-tenants"), 6379),
    (pod("head"), pod("redis-ray"), 6379),
    (pod("head"), outside({}), 6443),
    *[(outside(PROMETHEUS), pod(name), 8080) for name in RAY_PODS],
    (outside(OPERATOR), pod("head"), 8265),
    (outside(CLIENT), pod("front"), 8000),
    (outside(CLIENT), pod("target"), 8000),
    *[(outside({}), pod(name), 52365) for name in RAY_PODS],  # the kubelet's probe
]
REFUSED = [
    (outside({}), pod("front"), 8000),
    (outside(CLIENT), pod("head"), 8265),
    (outside(CLIENT), pod("redis-tenants"), 6379),
    (pod("target"), pod("redis-statistics"), 6379),
    (pod("host"), pod("redis-tenants"), 6379),
    (pod("front"), pod("redis-ray"), 6379),
    (pod("redis-tenants"), pod("redis-statistics"), 6379),
    (pod("target"), outside({}), 443),
    (outside({}), pod("target"), DATA_PLANE_PORT),
]


@pytest.mark.parametrize("name", ["gpu", "prod"])
def test_network_policies_let_through_what_is_needed_and_nothing_else(name: str) -> None:
    overlay = rendered(name)
    assert [each for each in NEEDED if not reaches(overlay, *each)] == []
    assert [each for each in REFUSED if reaches(overlay, *each)] == []


@pytest.mark.parametrize("name", ["gpu", "prod"])
def test_every_pod_is_under_a_network_policy_both_ways(name: str) -> None:
    overlay = rendered(name)
    for template in overlay.templates():
        for way in ("ingress", "egress"):
            assert not _is_let(overlay, template.labels, outside({}), 4444, way)


def test_probes_need_no_network_policy_but_those_that_are_there(overlay: Rendered) -> None:
    """Ours run inside the container; the operator's are those of port 52365."""
    for template in overlay.templates():
        for container in template.containers:
            for name in ("startupProbe", "readinessProbe", "livenessProbe"):
                assert set(container.get(name, {"exec": 1})) & {"exec"}
