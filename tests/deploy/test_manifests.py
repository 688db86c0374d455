"""The manifests agree with the node, with each other and with the image; nothing is started."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import cast

import pytest

from rakit.multiraft.config import HostConfig
from rakit.node import config as node_config
from rakit.node.app import CLOSE_S_MAX
from rakit.node.config import Address, load
from rakit.node.probes import REQUEST_S, Probes, State
from tests.deploy.manifests import (
    DEPLOY,
    NAMESPACE,
    ROOT,
    ZONE_LABEL,
    Pod,
    Tree,
    dockerfile,
    expanded,
    last,
    manifests,
)

ALL = manifests()
#: Three that found the cluster, and what it may grow to.
ORDINALS = range(5)


@pytest.mark.parametrize("ordinal", ORDINALS)
def test_the_node_takes_what_a_pod_is_told(ordinal: int) -> None:
    """Flags, file and variables go through its own parser, which refuses what it does not know."""
    pod = Pod(ordinal, zone="zone-a")
    settings = pod.settings()
    assert settings.name == pod.name
    assert settings.rack == "zone-a"
    host = f"{pod.name}.rakit-peers.{NAMESPACE}.svc"
    assert str(settings.peer_advertise) == f"{host}:{settings.peer_listen.port}"
    told = {each.name: each.address for each in settings.advertise}
    assert told == {each.name: Address(host, each.address.port) for each in settings.listen}


def test_every_variable_of_ours_is_one_of_the_nodes() -> None:
    """It lets unknown ones pass, since Kubernetes may set such names itself."""
    ours = {name for name in Pod(0).environ if name.startswith("RAKIT_")}
    assert ours, "a pod is told who it is"
    assert ours <= {f"RAKIT_{key.upper()}" for key in node_config._FIELDS}


def test_no_variable_names_one_that_is_not_there() -> None:
    assert [text for text in Pod(0).environ.values() if "$(" in text] == []
    assert expanded("$(A)$(B)", {"A": "a"}) == "a$(B)"


def test_a_machine_without_a_zone_is_no_rack() -> None:
    assert Pod(0).settings().rack == ""


def test_the_seeds_are_the_first_pods_by_names_that_they_keep() -> None:
    for ordinal in ORDINALS:
        settings = Pod(ordinal).settings()
        assert settings.bootstrap_expect == len(settings.seeds) <= ALL.set["replicas"]
        port = settings.peer_listen.port
        founders = [Pod(number) for number in range(len(settings.seeds))]
        assert settings.seeds == tuple(f"{each.host_names[0]}:{port}" for each in founders)


def test_pods_find_each_other_before_they_are_ready() -> None:
    """No pod is ready without a majority, so neither DNS nor the set may wait for it."""
    peers = ALL.service(ALL.set["serviceName"])
    assert peers["clusterIP"] == "None"
    assert peers["publishNotReadyAddresses"] is True
    assert ALL.set["podManagementPolicy"] == "Parallel"


def test_an_update_gives_dns_time_to_tell_where_a_pod_is_now() -> None:
    cached_s = 30  # by the usual Corefile
    assert ALL.set["minReadySeconds"] >= cached_s


def test_clients_are_sent_to_ready_pods_only() -> None:
    service = ALL.service("rakit")
    assert "publishNotReadyAddresses" not in service
    assert "clusterIP" not in service


def test_ports_are_those_that_the_node_listens_on() -> None:
    settings = Pod(0).settings()
    assert settings.http_listen is not None
    assert settings.lane_listen is not None
    (clients,) = settings.listen
    listened = {
        "clients": clients.address,
        "peers": settings.peer_listen,
        "probes": settings.http_listen,
        "lanes": settings.lane_listen,
    }
    assert ALL.container_ports == {name: each.port for name, each in listened.items()}
    # Of all interfaces: a probe comes in by the pod's address, not by loopback.
    assert all(each.is_wildcard for each in listened.values())


@pytest.mark.parametrize(
    ("service", "ports"), [("rakit", {"clients"}), ("rakit-peers", {"clients", "peers", "lanes"})]
)
def test_services_lead_to_the_ports_of_the_container(service: str, ports: set[str]) -> None:
    """By the same number: behind a headless Service nobody translates it."""
    found = {each["name"]: each for each in ALL.service(service)["ports"]}
    assert found.keys() == ports
    for each in found.values():
        assert each["port"] == ALL.container_ports[each["targetPort"]]


def test_every_selector_finds_the_pods() -> None:
    selectors = [
        ALL.set["selector"]["matchLabels"],
        ALL.service("rakit")["selector"],
        ALL.service("rakit-peers")["selector"],
        ALL.by_kind["PodDisruptionBudget", "rakit"]["spec"]["selector"]["matchLabels"],
        *(
            each["labelSelector"]["matchLabels"]
            for each in ALL.pod_spec["topologySpreadConstraints"]
        ),
    ]
    assert all(each and each.items() <= ALL.labels.items() for each in selectors), selectors


def test_a_drain_of_machines_leaves_a_majority_of_the_founders() -> None:
    budget = ALL.by_kind["PodDisruptionBudget", "rakit"]["spec"]
    assert budget["maxUnavailable"] == 1
    assert ALL.set["replicas"] >= 3


def test_replicas_are_spread_over_machines_and_where_possible_over_zones() -> None:
    spread = {each["topologyKey"]: each for each in ALL.pod_spec["topologySpreadConstraints"]}
    assert spread.keys() == {"kubernetes.io/hostname", ZONE_LABEL}
    # A machine that is being drained must not count, or nothing could be placed meanwhile.
    assert spread["kubernetes.io/hostname"]["nodeTaintsPolicy"] == "Honor"
    assert spread[ZONE_LABEL]["whenUnsatisfiable"] == "ScheduleAnyway"


def test_the_volume_is_the_data_directory() -> None:
    (claim,) = ALL.set["volumeClaimTemplates"]
    assert ALL.mounts[claim["metadata"]["name"]] == str(Pod(0).settings().data_dir)


def test_the_settings_are_where_the_node_looks_for_them() -> None:
    (given,) = ALL.container["args"]
    assert given in {f"--config={place}" for place in ALL.files()}


def asked(kind: str, state: State, missing_count: int = 0) -> int:
    """The status that the node answers to a probe."""
    get = ALL.container[kind]["httpGet"]
    assert get["port"] == "probes"
    probes = Probes(lambda: state, lambda: missing_count)
    status, _ = probes._answer(f"GET {get['path']} HTTP/1.1")
    return status


@pytest.mark.parametrize("kind", ["startupProbe", "livenessProbe"])
def test_nothing_ends_a_node_that_waits_for_a_majority_or_drains(kind: str) -> None:
    states: tuple[State, ...] = ("starting", "ready", "draining")
    assert [asked(kind, state, missing_count=7) for state in states] == [200, 200, 200]


def test_clients_come_when_a_node_has_joined_and_until_it_drains() -> None:
    states: tuple[State, ...] = ("starting", "ready", "draining")
    assert [asked("readinessProbe", state) for state in states] == [503, 200, 503]


def test_the_next_pod_stays_until_one_that_lost_its_disk_holds_its_replicas() -> None:
    """Drains and rolling updates wait for readiness and for nothing else."""
    assert asked("readinessProbe", "ready", missing_count=1) == 503


def test_probes_are_patient() -> None:
    """A start replays what a crash left; a loop may be held for seconds by us, longer by a disk."""

    def patience_s(kind: str) -> int:
        probe = ALL.container[kind]
        # An answer that comes later is none: the node itself closes the connection by then.
        assert probe["timeoutSeconds"] >= REQUEST_S
        return cast("int", probe["periodSeconds"] * probe["failureThreshold"])

    assert patience_s("startupProbe") >= 3600
    assert patience_s("livenessProbe") >= 600
    assert patience_s("readinessProbe") <= 10


def test_a_node_has_ended_before_it_is_killed() -> None:
    settings, host = Pod(0).settings(), HostConfig()
    listeners = len(settings.listen) * settings.tuning.drain_ms
    stop_ms = listeners + host.stop_transfer_ms_max + host.stop_flush_ms_max + host.stop_sync_ms_max
    grace_s = ALL.pod_spec["terminationGracePeriodSeconds"]
    assert grace_s >= 1.5 * (stop_ms / 1000 + CLOSE_S_MAX)


def test_the_container_may_do_nothing_that_the_node_does_not_need() -> None:
    pod, container = ALL.pod_spec["securityContext"], ALL.container["securityContext"]
    assert pod["runAsNonRoot"] is True
    assert container["readOnlyRootFilesystem"] is True
    assert container["allowPrivilegeEscalation"] is False
    assert container["capabilities"] == {"drop": ["ALL"]}
    assert ALL.pod_spec["automountServiceAccountToken"] is False


def test_the_image_runs_as_who_the_pod_runs_as() -> None:
    pod = ALL.pod_spec["securityContext"]
    assert last("USER") == f"{pod['runAsUser']}:{pod['runAsGroup']}"
    assert pod["fsGroup"] == pod["runAsGroup"]


def project() -> Tree:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_the_image_is_that_of_this_version() -> None:
    (image,) = ALL.kustomization["images"]
    assert image["name"] == ALL.container["image"]
    assert image["newTag"] == project()["project"]["version"]
    assert f"--tag rakit:{image['newTag']} " in (DEPLOY / "Dockerfile").read_text()


def test_the_image_says_which_ports_there_are_and_becomes_the_node() -> None:
    assert [int(port) for port in last("EXPOSE").split()] == [*ALL.container_ports.values()]
    assert json.loads(last("ENTRYPOINT")) == ["rakit", "serve"]
    assert "rakit" in project()["project"]["scripts"]
    assert "command" not in ALL.container


def test_the_image_gets_what_the_wheel_is_made_of() -> None:
    copied: list[str] = []
    for word, rest in dockerfile():
        if word == "COPY" and not rest.startswith("--from"):
            *sources, _ = rest.split()
            copied += sources
    wheel = project()["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    about = project()["project"]
    assert {*wheel, "pyproject.toml", about["readme"], *about["license-files"]} <= {*copied}
    assert [source for source in copied if not (ROOT / source).exists()] == []


def pins(lock: Path) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9._-]+)==(\S+)", lock.read_text(), re.MULTILINE))


def test_the_image_has_the_packages_that_were_tested() -> None:
    node, everything = pins(DEPLOY / "requirements.lock"), pins(ROOT / "requirements.lock")
    assert node.items() <= everything.items()
    about = project()["project"]
    wanted = [*about["dependencies"], *about["optional-dependencies"]["node"]]
    assert {re.split(r"[<>=;\[ ]", line)[0].lower() for line in wanted} <= node.keys()


def test_the_settings_that_explain_themselves_are_valid() -> None:
    assert load([f"--config={DEPLOY / 'rakit.toml'}"], {}).name == "node-1"
