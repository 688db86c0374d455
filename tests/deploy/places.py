"""Pods as processes on loopback: the manifests' own commands, in places that look like theirs.

What a place has of a container: the names of the manifests are looked up as they stand, by a file
of hosts that is seen there only; the volume is the one thing that can be written to; a process has
the manifest's variables, and no others but PATH. Three things are replaced in what the node is
told: the paths of its volumes; `0.0.0.0`, which here would be every pod's, by the pod's own address
of loopback; and the reserve of free space, which would be 5 GiB a pod.

A place takes a mount namespace, which takes root or user namespaces, and util-linux. Where they are
missing the tests are skipped and say so; under `RAKIT_SKIP_NOTHING` they fail instead.
"""

from __future__ import annotations

import asyncio
import http.client
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

import pytest

from tests.cluster.harness import Cluster, NodeProcess, until
from tests.deploy.manifests import Manifests, Pod, replaced

_UNSHARE: Final = ["unshare", "--mount", "--propagation", "private"]
#: Arguments: hosts, then what stays writable, and where that is mounted; then the command.
_SCRIPT: Final = """
mount --bind "$1" /etc/hosts
mount --bind "$2" "$2"
mount -o remount,bind,ro "$3"
mount -o remount,bind,ro /
shift 3
exec "$@"
"""
_HOSTS_BYTES: Final = 4096
#: So many addresses of loopback belong to one process; a pod that moves takes the next one.
_ADDRESSES_MAX: Final = 250


def require_places(directory: Path) -> None:
    """Skips the test where there can be no places, or fails it where nothing may be skipped."""
    probe = directory / "probe"
    probe.mkdir()
    (probe / "hosts").touch()
    try:
        done = subprocess.run(
            [*command(probe / "hosts", probe), "true"], capture_output=True, text=True, check=False
        )
        reason = done.stderr.strip() if done.returncode else ""
    except FileNotFoundError:
        reason = "unshare is missing (apt-get install -y util-linux)"
    if not reason:
        return
    if os.environ.get("RAKIT_SKIP_NOTHING"):
        pytest.fail(f"no pod can be imitated here: {reason}")
    pytest.skip(f"no pod can be imitated here: {reason}")


def command(hosts: Path, writable: Path) -> list[str]:
    """What runs a command in a place."""
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    mounted = next(each for each in (writable, *writable.parents) if each.is_mount())
    places = [str(each) for each in (hosts, writable, mounted)]
    return [*_UNSHARE, *user, "sh", "-ec", _SCRIPT, "place", *places]


@dataclass
class PodProcess(NodeProcess):
    """A pod, and its place."""

    pod: Pod = field(default_factory=lambda: Pod(0))

    @property
    def volume(self) -> Path:
        return self.directory / f"volume-of-{self.name}"

    def start(self, seeds: str = "", expect: int = 0, *more: str) -> None:
        """As the kubelet does; what a node is told otherwise stands in the manifests."""
        del seeds, expect
        assert not more, "a pod is told what the manifests say"
        assert self.process is None, f"{self.name} runs already"
        manifests = self.pod.manifests
        here = {mount: str(self.directory / self.name / name) for name, mount in _mounts(manifests)}
        here |= {"0.0.0.0": self.host, manifests.mounts["data"]: str(self.volume)}
        for place, source in manifests.files().items():
            target = Path(replaced(place, here))
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(replaced(source.read_text(), here))
        self.volume.mkdir(exist_ok=True)
        program, *arguments = (replaced(each, here) for each in self.pod.argv)
        argv = [*self.command, str(Path(sys.executable).parent / program), *arguments]
        environ = {"PATH": os.environ["PATH"], "RAKIT_DISK_RESERVE_BYTES": str(1 << 20)}
        with (self.directory / f"{self.name}.log").open("ab") as log:
            self.process = subprocess.Popen(
                argv, stdout=log, stderr=log, env=environ | self.pod.environ
            )

    @property
    def advertised(self) -> str:
        return self.pod.environ["RAKIT_ADVERTISE"]

    def lose_volume(self) -> None:
        """The claim is bound to another disk, an empty one."""
        shutil.rmtree(self.volume)

    async def probe(self, kind: Literal["startup", "liveness", "readiness"]) -> bool:
        """What the kubelet concludes from one probe."""
        asked = self.pod.manifests.container[f"{kind}Probe"]
        port = self.pod.manifests.container_ports[asked["httpGet"]["port"]]

        def ask() -> bool:
            one = http.client.HTTPConnection(self.host, port, timeout=asked["timeoutSeconds"])
            try:
                one.request("GET", asked["httpGet"]["path"])
                return one.getresponse().status == 200
            except OSError:
                return False
            finally:
                one.close()

        return await asyncio.to_thread(ask)


def _mounts(manifests: Manifests) -> list[tuple[str, str]]:
    return [(name, mount) for name, mount in manifests.mounts.items() if name != "data"]


class Places(Cluster):
    """The pods of a set, by name, and their DNS."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.hosts = self.directory / "hosts"
        self.hosts.write_bytes(b"\n" * _HOSTS_BYTES)
        # By process, so that two runs do not meet.
        pid = os.getpid()
        self._subnet = f"127.{64 + (pid >> 8) % 64}.{pid % 256}"
        self._given = 0

    def pod(self, ordinal: int) -> PodProcess:
        """The pod of this ordinal, which the set has from now on; it is not started."""
        pod = Pod(ordinal)
        if pod.name not in self.nodes:
            one = PodProcess(pod.name, self.directory, pod=pod)
            one.client_port = pod.manifests.container_ports["clients"]
            one.peer_port = pod.manifests.container_ports["peers"]
            one.command = command(self.hosts, one.volume)
            self.nodes[pod.name] = one
            self.move(one)
        found = self.nodes[pod.name]
        assert isinstance(found, PodProcess)
        return found

    def _pods(self) -> list[PodProcess]:
        return [each for each in self.nodes.values() if isinstance(each, PodProcess)]

    def move(self, pod: PodProcess) -> None:
        """Gives a pod that does not run an address that nobody had, and tells DNS."""
        assert pod.process is None, "an address is for the life of a pod"
        self._given += 1
        assert self._given <= _ADDRESSES_MAX, "there are more addresses than moves"
        pod.host = f"{self._subnet}.{self._given}"
        # No name stands in two lines: gRPC's resolver would take them for one host.
        names = [" ".join([each.host, *each.pod.host_names]) for each in self._pods()]
        # In place, since the file is mounted, and in one piece, since somebody may read it.
        content = "\n".join(["127.0.0.1 localhost", *names]).encode().ljust(_HOSTS_BYTES, b"\n")
        with self.hosts.open("r+b", buffering=0) as file:
            file.write(content)

    def client(self, *arguments: str) -> Sequence[str]:
        """A command of `tests.deploy.client` where the names of the pods are known.

        It begins at all pods, as at the Service, whose one address has nothing behind it here.
        """
        writable = self.directory / "of-clients"
        writable.mkdir(exist_ok=True)
        bootstrap = [each.advertised for each in self._pods()]
        argv = [sys.executable, "-m", "tests.deploy.client", ",".join(bootstrap), *arguments]
        return [*command(self.hosts, writable), *argv]


@asynccontextmanager
async def places_of(directory: Path) -> AsyncGenerator[Places]:
    """A set without pods; all that it gets end with the block."""
    require_places(directory)
    places = Places(directory / "set", seed_count=0)
    try:
        yield places
    finally:
        await places.close()
        shutil.rmtree(places.directory, ignore_errors=True)


async def is_ready(pod: PodProcess) -> None:
    """Waits until clients are sent to it."""
    assert pod.process is not None, f"{pod.name} was not started"

    async def ready() -> bool:
        assert pod.process is not None
        assert pod.process.poll() is None, f"{pod.name} has ended\n{pod.tail}"
        return await pod.probe("readiness")

    await until(f"{pod.name} is ready", ready)
