"""The overlays of k8s/ as `kubectl kustomize` renders them, each once in a process."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
K8S = ROOT / "k8s"
OVERLAYS = ("dev", "gpu", "prod")
COMPONENT = "hedgerow.io/component"

Manifest = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class PodTemplate:
    """`owner` is what makes pods of it; `name` that, or a group's of the RayService."""

    owner: str
    name: str
    labels: Mapping[str, str]
    spec: Manifest

    @property
    def component(self) -> str:
        return self.labels[COMPONENT]

    @property
    def containers(self) -> list[Manifest]:
        return [*self.spec.get("initContainers", []), *self.spec["containers"]]


@dataclass(frozen=True, slots=True)
class Rendered:
    """All manifests of one kustomization."""

    name: str
    manifests: tuple[Manifest, ...]

    def of(self, kind: str) -> dict[str, Manifest]:
        """By name."""
        return {m["metadata"]["name"]: m for m in self.manifests if m["kind"] == kind}

    @property
    def service(self) -> Manifest:
        (found,) = self.of("RayService").values()
        return found

    @property
    def cluster(self) -> Manifest:
        found: Manifest = self.service["spec"]["rayClusterConfig"]
        return found

    @property
    def groups(self) -> dict[str, Manifest]:
        return {group["groupName"]: group for group in self.cluster["workerGroupSpecs"]}

    @property
    def serve_config(self) -> dict[str, Any]:
        found: dict[str, Any] = yaml.safe_load(self.service["spec"]["serveConfigV2"])
        return found

    def templates(self) -> Iterator[PodTemplate]:
        heads = {"head": self.cluster["headGroupSpec"], **self.groups}
        for name, group in heads.items():
            yield _template("RayService", name, group["template"])
        for name, manifest in self.of("StatefulSet").items():
            yield _template("StatefulSet", name, manifest["spec"]["template"])


@cache
def rendered(overlay: str) -> Rendered:
    return _render(overlay, K8S / "overlays" / overlay)


@cache
def secrets() -> Rendered:
    """The placeholders of what overlays other than dev expect to be there."""
    return _render("secrets", K8S / "secrets")


@cache
def models() -> Rendered:
    """What is applied before the overlays that read models from a claim."""
    return _render("models", K8S / "models")


def selects(selector: Manifest, labels: Mapping[str, str]) -> bool:
    """Whether a label selector of Kubernetes is met."""
    for key, value in selector.get("matchLabels", {}).items():
        if labels.get(key) != value:
            return False
    for each in selector.get("matchExpressions", []):
        assert each["operator"] == "In", "no other operator is used here"
        if labels.get(each["key"]) not in each["values"]:
            return False
    return True


def _render(name: str, folder: Path) -> Rendered:
    kubectl = Path(sys.executable).with_name("kubectl")
    done = subprocess.run(
        [str(kubectl), "kustomize", str(folder)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    documents = yaml.load_all(done.stdout, Loader=yaml.CSafeLoader)
    return Rendered(name, tuple(json.loads(json.dumps(each)) for each in documents))


def _template(owner: str, name: str, template: Manifest) -> PodTemplate:
    return PodTemplate(owner, name, template["metadata"]["labels"], template["spec"])
