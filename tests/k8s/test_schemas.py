"""What an API server and the KubeRay operator would refuse, without either."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from crd import problems, read_schema
from manifests import K8S, ROOT, Manifest, Rendered, models, secrets

CRDS = Path(os.environ.get("HEDGEROW_CRDS", ROOT.parent / "shared" / "crds"))
MONITORING = ("PodMonitor", "PrometheusRule")
needs_crds = pytest.mark.skipif(
    not CRDS.is_dir(), reason=f"no CRDs of KubeRay 1.7 in {CRDS}; HEDGEROW_CRDS says where they are"
)
MAX_NAME = 47  # of a RayService: its clusters and their services get longer ones
NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")


@cache
def schema() -> dict[str, Any]:
    return read_schema(CRDS / "ray.io_rayservices.yaml", "v1")


def env(container: Manifest) -> dict[str, Manifest]:
    return {each["name"]: each for each in container.get("env", [])}


def kustomizations() -> Iterator[Path]:
    yield from K8S.rglob("kustomization.yaml")


def test_built_in_kinds_are_valid(overlay: Rendered) -> None:
    kinds = set()
    for manifest in [*overlay.manifests, *secrets().manifests, *models().manifests]:
        if manifest["kind"] != "RayService" and manifest["kind"] not in MONITORING:
            kubernetes_validate.validate(dict(manifest), "1.37", strict=True)
            kinds.add(manifest["kind"])
    assert {"StatefulSet", "Service", "ResourceQuota"} <= kinds
    assert ("PodDisruptionBudget" in kinds) == (overlay.name != "dev")


@needs_crds
def test_the_ray_service_is_what_its_crd_describes(overlay: Rendered) -> None:
    assert problems(overlay.service, schema()) == []


@needs_crds
@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("spec", "rayClusterConfg"), {}, ".spec.rayClusterConfg"),
        (("spec", "rayClusterConfig", "authOptions", "mode"), "none", "'none' is not one of"),
        (("spec", "rayClusterConfig", "rayVersion"), 2.6, "2.6 is not of type 'string'"),
        (("spec", "rayClusterConfig", "headGroupSpec"), {}, "'template' is a required property"),
    ],
)
def test_a_mistake_would_be_found(
    overlay: Rendered, path: tuple[str, ...], value: object, said: str
) -> None:
    def changed(node: Mapping[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
        below = changed(node[keys[0]], keys[1:]) if len(keys) > 1 else value
        return {**node, keys[0]: below}

    assert any(said in each for each in problems(changed(overlay.service, path), schema()))


def test_names_leave_room_for_the_operators_own(overlay: Rendered) -> None:
    name = overlay.service["metadata"]["name"]
    assert len(name) <= MAX_NAME
    assert NAME.fullmatch(name)
    for group in overlay.groups:
        assert NAME.fullmatch(group)


def test_the_head_has_a_port_named_serve(overlay: Rendered) -> None:
    """So has every pod with a proxy: the operator's service leads there."""
    config = overlay.serve_config["http_options"]["port"]
    for template in overlay.templates():
        if template.owner == "RayService":
            ports = {p["name"]: p["containerPort"] for p in template.spec["containers"][0]["ports"]}
            assert ports["serve"] == config


def test_fault_tolerance_is_set_in_one_way(overlay: Rendered) -> None:
    assert ("gcsFaultToleranceOptions" in overlay.cluster) == (overlay.name != "dev")
    annotations = overlay.service["metadata"].get("annotations", {})
    assert not {"ray.io/ft-enabled", "ray.io/external-storage-namespace"} & set(annotations)
    head = overlay.cluster["headGroupSpec"]
    given = env(head["template"]["spec"]["containers"][0])
    assert not {"RAY_REDIS_ADDRESS", "REDIS_PASSWORD", "REDIS_USERNAME"} & set(given)
    assert not {"redis-password", "redis-username"} & set(head["rayStartParams"])


def test_resources_are_given_once(overlay: Rendered) -> None:
    """Either as a group's `resources` or as parameters of `ray start`."""
    for group in [overlay.cluster["headGroupSpec"], *overlay.groups.values()]:
        assert group["resources"]
        assert not {"num-cpus", "num-gpus", "memory", "resources"} & set(group["rayStartParams"])
        assert "labels" not in group["rayStartParams"]


def test_groups_can_have_as_many_pods_as_they_start_with(overlay: Rendered) -> None:
    for group in overlay.groups.values():
        assert 0 <= group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]


def test_only_the_service_has_an_upgrade_strategy(overlay: Rendered) -> None:
    strategy = overlay.service["spec"]["upgradeStrategy"]["type"]
    assert strategy in ("NewCluster", "None")
    assert "upgradeStrategy" not in overlay.cluster


def test_the_second_autoscaler_may_end_pods_for_good(overlay: Rendered) -> None:
    cluster = overlay.cluster
    assert cluster["enableInTreeAutoscaling"] is True
    assert cluster["autoscalerOptions"]["version"] == "v2"
    for template in overlay.templates():
        if template.owner == "RayService":
            assert template.spec.get("restartPolicy", "Never") == "Never"
            assert "RAY_enable_autoscaler_v2" not in env(template.spec["containers"][0])


def test_tokens_are_asked_for_by_a_ray_that_knows_them(overlay: Rendered) -> None:
    assert overlay.cluster["authOptions"]["mode"] == "token"
    major, minor, _ = map(int, overlay.cluster["rayVersion"].split("."))
    assert (major, minor) >= (2, 52)


def test_the_operator_names_the_heads_service(overlay: Rendered) -> None:
    service = overlay.cluster["headGroupSpec"].get("headService", {})
    assert "name" not in service.get("metadata", {})


def test_ray_is_of_the_version_that_the_tests_run_with(overlay: Rendered) -> None:
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    assert f"\nray=={overlay.cluster['rayVersion']}\n" in constraints


def test_nothing_scales_pods_behind_the_autoscalers_back(overlay: Rendered) -> None:
    assert overlay.of("HorizontalPodAutoscaler") == {}


def test_patches_are_json_patches() -> None:
    """A strategic merge would wipe the lists of a custom resource."""
    num_patches = 0
    for path in kustomizations():
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert not {"patchesStrategicMerge", "patchesJson6902"} & set(document)
        for patch in document.get("patches", []):
            operations = yaml.safe_load((path.parent / patch["path"]).read_text(encoding="utf-8"))
            assert {operation["op"] for operation in operations} <= {"test", "add", "replace"}
            num_patches += 1
    assert num_patches > 5
