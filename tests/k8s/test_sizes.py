"""Pods, Serve's replicas and the quota fit each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from manifests import Manifest, Rendered, rendered

from cluster.config import ClusterConfig

GPU = "nvidia.com/gpu"
UNITS = {"m": 1e-3, "Mi": 2**20, "Gi": 2**30}


def amount(text: str) -> float:
    """A quantity of Kubernetes."""
    for unit, factor in UNITS.items():
        if text.endswith(unit):
            return float(text.removesuffix(unit)) * factor
    return float(text)


def deployments(overlay: Rendered) -> dict[str, Mapping[str, Any]]:
    """What each deployment of the application books, and how many replicas it may have."""
    (application,) = overlay.serve_config["applications"]
    found: dict[str, Mapping[str, Any]] = {}
    for deployment in application["deployments"]:
        scaling = deployment.get("autoscaling_config", {})
        most = scaling.get("max_replicas", deployment.get("num_replicas", 1))
        found[deployment["name"]] = {**deployment["ray_actor_options"], "most": most}
    for host in ClusterConfig.model_validate(application["args"]).hosts:
        booked = {"num_gpus": host.num_gpus, "num_cpus": host.num_cpus}
        found[host.deployment] = {**booked, "resources": host.resources, "most": host.num_replicas}
    return found


def group_of(overlay: Rendered, booked: Mapping[str, Any]) -> Manifest:
    """The one whose pods can hold a replica."""
    labels, resources = booked.get("label_selector", {}), booked.get("resources", {})
    (found,) = (
        group
        for group in overlay.groups.values()
        if labels.items() <= group["labels"].items() and set(resources) <= set(group["resources"])
        and (labels or resources)
    )  # fmt: skip
    return found


def test_every_deployment_says_what_it_books(overlay: Rendered) -> None:
    """Serve takes `ray_actor_options` of the file instead of the code's, not beside them."""
    for booked in deployments(overlay).values():
        assert booked["num_cpus"] > 0


def test_pods_of_every_class_hold_all_replicas_that_serve_may_start(overlay: Rendered) -> None:
    needed: dict[tuple[str, str], float] = {}
    for booked in deployments(overlay).values():
        group = group_of(overlay, booked)
        wanted = {"CPU": booked["num_cpus"], "GPU": booked.get("num_gpus", 0)}
        for resource, value in {**wanted, **booked.get("resources", {})}.items():
            key = group["groupName"], resource
            needed[key] = needed.get(key, 0) + value * booked["most"]
            assert value <= amount(group["resources"].get(resource, "0")), "one must fit a pod"
    for (name, resource), value in needed.items():
        group = overlay.groups[name]
        assert value <= amount(group["resources"].get(resource, "0")) * group["maxReplicas"]


def test_ray_counts_the_gpus_and_cores_that_pods_get(overlay: Rendered) -> None:
    for group in overlay.groups.values():
        requests = group["template"]["spec"]["containers"][0]["resources"]["requests"]
        assert amount(group["resources"].get("GPU", "0")) == amount(requests.get(GPU, "0"))
        assert amount(group["resources"]["memory"]) == amount(requests["memory"])


def test_targets_and_hosts_are_on_gpus_of_their_own_classes() -> None:
    for overlay in map(rendered, ("gpu", "prod")):
        classes: dict[str, set[str]] = {}
        for template in overlay.templates():
            if template.component in ("target", "host"):
                chosen = template.spec["nodeSelector"][f"{GPU}.product"]
                classes.setdefault(template.component, set()).add(chosen)
                assert template.spec["tolerations"][0]["key"] == GPU
        assert len(classes["target"]) == len(classes["host"]) == 1
        assert classes["target"] != classes["host"]


def test_targets_are_scaled_by_their_ongoing_requests() -> None:
    for overlay in map(rendered, ("gpu", "prod")):
        by_name = {d["name"]: d for d in overlay.serve_config["applications"][0]["deployments"]}
        scaling = by_name["Target"]["autoscaling_config"]
        assert scaling["target_ongoing_requests"] > 0
        group = overlay.groups["target"]
        assert group["minReplicas"] == scaling["min_replicas"]
        assert group["maxReplicas"] == scaling["max_replicas"]


def test_the_quota_holds_an_upgrade(overlay: Rendered) -> None:
    """Two clusters beside each other at their largest, and the Redis."""
    most = {template.name: 0 for template in overlay.templates()}
    for name, manifest in overlay.of("StatefulSet").items():
        most[name] = manifest["spec"]["replicas"]
    num_clusters = 2 if overlay.service["spec"]["upgradeStrategy"]["type"] == "NewCluster" else 1
    most["head"] = num_clusters
    for name, group in overlay.groups.items():
        most[name] = num_clusters * group["maxReplicas"]
    autoscaler = overlay.cluster["autoscalerOptions"]["resources"]["requests"]
    (quota,) = overlay.of("ResourceQuota").values()
    for resource in ("cpu", "memory", GPU):
        total = amount(autoscaler.get(resource, "0")) * num_clusters
        for template in overlay.templates():
            asked = [c["resources"]["requests"].get(resource, "0") for c in template.containers]
            total += sum(map(amount, asked)) * most[template.name]
        assert total <= amount(quota["spec"]["hard"][f"requests.{resource}"]), resource
