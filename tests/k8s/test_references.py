"""Whatever a manifest names is there, and whatever must be reached can be."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from manifests import COMPONENT, Manifest, PodTemplate, Rendered, models, rendered, secrets, selects

from cluster.statistics.client import connect
from deployments.transport_secret import VARIABLE, TransportSecretError, read_secrets


def values_of(node: object, key: str) -> Iterator[Any]:
    """Of every mapping below `node` that has the key."""
    if isinstance(node, Mapping):
        if key in node:
            yield node[key]
        for value in node.values():
            yield from values_of(value, key)
    elif isinstance(node, list | tuple):
        for item in node:
            yield from values_of(item, key)


def with_secrets(overlay: Rendered) -> dict[str, Manifest]:
    own = overlay.of("Secret")
    return own if overlay.name == "dev" else {**own, **secrets().of("Secret")}


def templates(overlay: Rendered) -> dict[str, PodTemplate]:
    return {template.name: template for template in overlay.templates()}


def test_every_secret_that_is_named_is_there(overlay: Rendered) -> None:
    known = {name: set(s["stringData"]) for name, s in with_secrets(overlay).items()}
    named = {(ref["name"], ref["key"]) for ref in values_of(overlay.manifests, "secretKeyRef")}
    assert {("hedgerow-transport", "secret")} < named
    assert [ref for ref in named if ref[1] not in known.get(ref[0], set())] == []
    assert {name for name, _ in named} == set(known) or overlay.name != "prod"


def test_only_the_development_overlay_carries_secrets(overlay: Rendered) -> None:
    assert bool(overlay.of("Secret")) == (overlay.name == "dev")


def test_placeholders_are_refused_where_they_are_read() -> None:
    found = secrets().of("Secret")
    with pytest.raises(TransportSecretError):
        read_secrets({VARIABLE: found["hedgerow-transport"]["stringData"]["secret"]})
    for name, secret in found.items():
        if name != "hedgerow-transport":
            assert secret["stringData"]["password"].startswith("replace-me")  # see start-redis.sh


def test_the_development_transport_secret_is_accepted() -> None:
    secret = rendered("dev").of("Secret")["hedgerow-transport"]["stringData"]["secret"]
    assert read_secrets({VARIABLE: secret}) == (secret,)


def test_a_password_is_in_no_argument_and_in_no_config(overlay: Rendered) -> None:
    """Ray's dashboard shows both."""
    assert not re.search(r"password|secret", overlay.service["spec"]["serveConfigV2"], re.I)


def test_every_config_map_account_and_claim_that_is_named_is_there(overlay: Rendered) -> None:
    maps, accounts = overlay.of("ConfigMap"), overlay.of("ServiceAccount")
    for template in overlay.templates():
        assert template.spec["serviceAccountName"] in accounts
        for volume in template.spec.get("volumes", []):
            if "configMap" in volume:
                assert volume["configMap"]["name"] in maps
            if "persistentVolumeClaim" in volume:
                claim = volume["persistentVolumeClaim"]["claimName"]
                assert claim in overlay.of("PersistentVolumeClaim")


def test_every_script_that_is_started_is_in_its_config_map(overlay: Rendered) -> None:
    for template in overlay.templates():
        scripts = {v["name"]: v.get("configMap", {}) for v in template.spec.get("volumes", [])}
        for container in template.containers:
            for word in container.get("command", []):
                if word.startswith("/scripts/"):
                    found = overlay.of("ConfigMap")[scripts["scripts"]["name"]]
                    assert word.removeprefix("/scripts/") in found["data"]


def test_every_volume_that_is_mounted_is_there(overlay: Rendered) -> None:
    for template in overlay.templates():
        volumes = {volume["name"] for volume in template.spec.get("volumes", [])}
        if template.owner == "StatefulSet":
            claims = overlay.of("StatefulSet")[template.name]["spec"]["volumeClaimTemplates"]
            volumes |= {claim["metadata"]["name"] for claim in claims}
        for container in template.containers:
            assert {mount["name"] for mount in container["volumeMounts"]} <= volumes


def test_every_variable_that_a_value_uses_was_set_before_it(overlay: Rendered) -> None:
    """Kubernetes leaves the text $(NAME) where NAME is set later, or nowhere."""
    num_uses = 0
    for template in overlay.templates():
        for container in template.containers:
            seen = set()
            for each in container.get("env", []):
                for name in re.findall(r"\$\((\w+)\)", each.get("value", "")):
                    assert name in seen, f"{template.name}: {each['name']} uses {name}"
                    num_uses += 1
                seen.add(each["name"])
    assert num_uses >= 2


def test_what_is_learnt_and_who_may_ask_is_kept_where_the_router_and_ingress_are(
    overlay: Rendered,
) -> None:
    """And their passwords are nowhere else."""
    for template in overlay.templates():
        names = {each["name"] for c in template.containers for each in c.get("env", [])}
        is_front = template.component == "front"
        assert is_front == ({"REDIS_URL", "HEDGEROW_TENANTS_REDIS_URL"} <= names)
        assert is_front == bool({"REDIS_URL", "HEDGEROW_TENANTS_REDIS_URL"} & names)


def test_the_redis_urls_can_be_used(overlay: Rendered) -> None:
    """With a password in them, by our own client; their hosts are services here."""
    (front,) = (t for t in overlay.templates() if t.component == "front")
    given = {each["name"]: each.get("value") for each in front.containers[-1]["env"]}
    for name in ("REDIS_URL", "HEDGEROW_TENANTS_REDIS_URL"):
        url = re.sub(r"\$\(\w+\)", "word", given[name])
        connect(url)
        hosts = re.findall(r"([\w.-]+):(\d+)", url.rpartition("@")[2])
        for host, port in hosts:
            service = overlay.of("Service")[host.rpartition(".")[2]]
            assert int(port) in [each["port"] for each in service["spec"]["ports"]]
    assert (given["REDIS_URL"].count("26379") == 3) == (overlay.name == "prod")


def test_rays_own_redis_is_a_service_here(overlay: Rendered) -> None:
    options = overlay.cluster.get("gcsFaultToleranceOptions")
    if options is not None:
        name, port = options["redisAddress"].split(":")
        assert int(port) in [p["port"] for p in overlay.of("Service")[name]["spec"]["ports"]]


def test_every_service_leads_to_a_port_of_some_pod(overlay: Rendered) -> None:
    for service in overlay.of("Service").values():
        pods = [t for t in overlay.templates() if selects_all(service["spec"]["selector"], t)]
        assert pods
        for port in service["spec"]["ports"]:
            for pod in pods:
                assert port["targetPort"] in [
                    p["name"] for c in pod.containers for p in c.get("ports", [])
                ]


def selects_all(selector: Mapping[str, str], template: PodTemplate) -> bool:
    return selects({"matchLabels": selector}, template.labels)


def test_every_stateful_set_selects_its_own_pods_alone(overlay: Rendered) -> None:
    for name, manifest in overlay.of("StatefulSet").items():
        selector = manifest["spec"]["selector"]
        chosen = [t.name for t in overlay.templates() if selects(selector, t.labels)]
        assert chosen == [name]
        assert manifest["spec"]["serviceName"] in overlay.of("Service")


def num_pods(overlay: Rendered, template: PodTemplate) -> int:
    """That are there at least."""
    if template.owner == "StatefulSet":
        replicas: int = overlay.of("StatefulSet")[template.name]["spec"]["replicas"]
        return replicas
    group = overlay.groups.get(template.name)
    return 1 if group is None else int(group["minReplicas"])


def test_every_disruption_budget_is_for_pods_that_are_there(overlay: Rendered) -> None:
    for budget in overlay.of("PodDisruptionBudget").values():
        spec = budget["spec"]
        chosen = [t for t in overlay.templates() if selects(spec["selector"], t.labels)]
        assert chosen
        assert type(spec["minAvailable"]) is int, "pods of a RayCluster have no scale subresource"
        assert spec["minAvailable"] <= sum(num_pods(overlay, t) for t in chosen)


def test_every_node_can_be_emptied(overlay: Rendered) -> None:
    """Of everything that has a budget there are more pods than it keeps."""
    for name, budget in overlay.of("PodDisruptionBudget").items():
        selector = budget["spec"]["selector"]
        chosen = [t for t in overlay.templates() if selects(selector, t.labels)]
        assert budget["spec"]["minAvailable"] < sum(num_pods(overlay, t) for t in chosen), name


def test_whatever_production_has_more_of_than_one_keeps_some() -> None:
    overlay = rendered("prod")
    kept = overlay.of("PodDisruptionBudget")
    assert set(kept) == {"hedgerow-front", "hedgerow-target", "hedgerow-host", "redis-statistics"}
    for template in overlay.templates():
        if num_pods(overlay, template) > 1:
            selectors = [budget["spec"]["selector"] for budget in kept.values()]
            assert any(selects(selector, template.labels) for selector in selectors)


def test_models_are_filled_into_the_claim_that_overlays_apply_again() -> None:
    (claim,) = models().of("PersistentVolumeClaim").values()
    for overlay in map(rendered, ("gpu", "prod")):
        assert overlay.of("PersistentVolumeClaim")[claim["metadata"]["name"]] == claim
        (quota,) = overlay.of("ResourceQuota").values()
        (pod,) = models().of("Pod").values()
        for container in pod["spec"]["containers"]:
            for resource in ("cpu", "memory"):  # or the quota refuses the pod
                assert f"requests.{resource}" in quota["spec"]["hard"]
                assert resource in container["resources"]["requests"]
        (volume,) = pod["spec"]["volumes"]
        assert volume["persistentVolumeClaim"]["claimName"] == claim["metadata"]["name"]


def test_every_pod_says_of_itself_what_it_is(overlay: Rendered) -> None:
    """The operator puts the cluster's name on pods, which is another with each upgrade."""
    for template in overlay.templates():
        assert template.labels["app.kubernetes.io/part-of"] == "hedgerow"
        assert template.component
        own = overlay.groups.get(template.name, {}).get("labels", {})
        assert own.get(COMPONENT, template.component) == template.component


def test_pods_run_as_nobody_in_particular(overlay: Rendered) -> None:
    for template in overlay.templates():
        assert template.spec["securityContext"]["runAsNonRoot"] is True
        for container in template.containers:
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            image, _, tag = container["image"].rpartition(":")
            assert image
            assert re.match(r"\d", tag), "an image needs a version"


def test_a_pod_outlives_its_drain_and_serves_grace(overlay: Rendered) -> None:
    deployments = overlay.serve_config["applications"][0]["deployments"]
    grace_s = max(d.get("graceful_shutdown_timeout_s", 5.0) for d in deployments)
    for name in overlay.groups:
        template = templates(overlay)[name]
        (container,) = template.spec["containers"]
        *command, drain_s = container["lifecycle"]["preStop"]["exec"]["command"]
        assert command == ["python", "-m", "deployments.drain"]
        assert grace_s < int(drain_s) < template.spec["terminationGracePeriodSeconds"]
