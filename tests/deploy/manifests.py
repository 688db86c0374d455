"""The manifests of `deploy/kubernetes` as Kubernetes reads them, and what a pod is told.

`Pod` is what the kubelet starts: the image's entry point and the container's arguments, with the
variables that they and each other name by `$(...)`. What Kubernetes fills in from elsewhere is
given by the test: the ordinal, the namespace, the machine's zone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Final, TypeAlias, cast

import yaml

from rakit.node.config import NodeConfig, load

Tree: TypeAlias = dict[str, Any]
ROOT: Final = Path(__file__).resolve().parent.parent.parent
DEPLOY: Final = ROOT / "deploy"
FOLDER: Final = DEPLOY / "kubernetes"
NAMESPACE: Final = "some-namespace"
ZONE_LABEL: Final = "topology.kubernetes.io/zone"
_REFERENCE: Final = re.compile(r"\$\(([A-Za-z_][A-Za-z0-9_]*)\)")


def _document(path: Path) -> Tree:
    return cast("Tree", yaml.safe_load(path.read_text()))


def dockerfile() -> list[tuple[str, str]]:
    """Instructions with their arguments."""
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    split = (line.partition(" ") for line in lines if line and not line.startswith("#"))
    return [(word, rest) for word, _, rest in split]


def last(instruction: str) -> str:
    """The arguments of the last such instruction, which is the one of the image."""
    return [rest for word, rest in dockerfile() if word == instruction][-1]


class Manifests:
    """Everything that `kubectl apply -k` sends."""

    def __init__(self) -> None:
        self.kustomization = _document(FOLDER / "kustomization.yaml")
        documents = [_document(FOLDER / name) for name in self.kustomization["resources"]]
        self.by_kind = {(each["kind"], each["metadata"]["name"]): each for each in documents}

    @cached_property
    def set(self) -> Tree:
        return cast("Tree", self.by_kind["StatefulSet", "rakit"]["spec"])

    @cached_property
    def pod_spec(self) -> Tree:
        return cast("Tree", self.set["template"]["spec"])

    @cached_property
    def labels(self) -> dict[str, str]:
        return cast("dict[str, str]", self.set["template"]["metadata"]["labels"])

    @cached_property
    def container(self) -> Tree:
        (container,) = self.pod_spec["containers"]
        return cast("Tree", container)

    @cached_property
    def container_ports(self) -> dict[str, int]:
        return {each["name"]: each["containerPort"] for each in self.container["ports"]}

    @cached_property
    def mounts(self) -> dict[str, str]:
        """Where each volume is."""
        return {each["name"]: each["mountPath"] for each in self.container["volumeMounts"]}

    def service(self, name: str) -> Tree:
        return cast("Tree", self.by_kind["Service", name]["spec"])

    def files(self) -> dict[str, Path]:
        """What lies in a pod beside the image and the data: its place there, and the file here."""
        generated = {each["name"]: each for each in self.kustomization["configMapGenerator"]}
        return {
            f"{self.mounts[volume['name']]}/{name}": FOLDER / name
            for volume in self.pod_spec["volumes"]
            for name in generated[volume["configMap"]["name"]]["files"]
        }


@cache
def manifests() -> Manifests:
    """They do not change while tests run."""
    return Manifests()


@dataclass(frozen=True)
class Pod:
    """One pod of the set."""

    ordinal: int
    zone: str = ""
    manifests: Manifests = field(default_factory=manifests)

    @property
    def name(self) -> str:
        return f"rakit-{self.ordinal}"

    @property
    def host_names(self) -> list[str]:
        """What DNS knows it by, within its namespace and beyond."""
        service = self.manifests.set["serviceName"]
        return [f"{self.name}.{service}", f"{self.name}.{service}.{NAMESPACE}.svc"]

    def _from_field(self, path: str) -> str:
        match re.fullmatch(r"(metadata\.\w+)(?:\['(.+)'\])?", path):
            case None:
                raise AssertionError(f"no such field: {path}")
            case found:
                pass
        labels = self.manifests.labels | ({ZONE_LABEL: self.zone} if self.zone else {})
        match found.groups():
            case ("metadata.name", None):
                return self.name
            case ("metadata.namespace", None):
                return NAMESPACE
            case ("metadata.labels", str(label)):
                return labels.get(label, "")
            case _:
                raise AssertionError(f"the kubelet knows no {path}")

    @property
    def environ(self) -> dict[str, str]:
        """The variables of the container; one may name those before it."""
        known: dict[str, str] = {}
        for each in self.manifests.container["env"]:
            if "value" in each:
                known[each["name"]] = expanded(each["value"], known)
            else:
                known[each["name"]] = self._from_field(each["valueFrom"]["fieldRef"]["fieldPath"])
        return known

    @property
    def argv(self) -> list[str]:
        """The command, as the image and the manifest have it."""
        entry = cast("list[str]", json.loads(last("ENTRYPOINT")))
        given = cast("list[str]", self.manifests.container["args"])
        return entry + [expanded(each, self.environ) for each in given]

    def settings(self) -> NodeConfig:
        """What the node makes of all that."""
        argv = self.argv
        assert argv[:2] == ["rakit", "serve"]
        here = {at: str(path) for at, path in self.manifests.files().items()}
        return load([replaced(each, here) for each in argv[2:]], self.environ)


def expanded(text: str, known: Mapping[str, str]) -> str:
    """As the kubelet does it: a name that nobody has stays as it is."""
    return _REFERENCE.sub(lambda found: known.get(found[1], found[0]), text)


def replaced(text: str, other: Mapping[str, str]) -> str:
    """The text with each of these replaced."""
    for one, by in other.items():
        text = text.replace(one, by)
    return text
