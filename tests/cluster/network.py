"""A network of our own to cut: each node in a network namespace, and a switch between them.

That takes root, iproute2 and /dev/net/tun. Where one is missing the tests are skipped and say so;
under `RAKIT_SKIP_NOTHING`, which `.ci/run` sets, they fail instead.

Each namespace has one TAP interface, and one is in the namespace of this process, for its clients.
A thread holds their other ends and passes frames on. A cut is frames that it does not pass on: no
end sees a reset or a lost carrier, as with a cable or a switch that dies somewhere between.
"""

from __future__ import annotations

import fcntl
import os
import select
import shutil
import struct
import subprocess
import threading
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

_TUNSETIFF = 0x400454CA
_TAP_WITHOUT_HEADER = 0x0002 | 0x1000  # IFF_TAP | IFF_NO_PI
_FRAME_BYTES_MAX = 2048
_MAC_BYTES = 6
#: The namespace of this process.
_HERE = ""


def require_networks() -> None:
    """Skips the test where no network can be made, or fails it where nothing may be skipped."""
    if (reason := _why_not()) is None:
        return
    if os.environ.get("RAKIT_SKIP_NOTHING"):
        pytest.fail(f"no network can be made here: {reason}")
    pytest.skip(f"no network can be made here: {reason}")


def _why_not() -> str | None:
    if os.geteuid() != 0:
        return "it takes root"
    if not shutil.which("ip"):
        return "ip is missing (apt-get install -y iproute2)"
    if not Path("/dev/net/tun").exists():
        return "/dev/net/tun is missing"
    probe = _ip("netns", "add", name := f"rk{os.getpid()}probe")
    _ip("netns", "del", name)
    return None if probe.returncode == 0 else f"no namespace: {probe.stderr.strip()}"


def _ip(*argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["ip", *argv], capture_output=True, text=True, check=False)


def _must(*argv: str) -> None:
    done = _ip(*argv)
    if done.returncode != 0:
        pytest.fail(f"ip {' '.join(argv)}: {done.stderr}")


class Network:
    """Exists inside the ``with`` block; nodes are started by `command` and reached at `host`."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = list(names)
        self._prefix = f"rk{os.getpid()}"
        # Of the range for such networks (RFC 2544); by process, so that two runs do not meet.
        self._subnet = f"198.{18 + (os.getpid() >> 8) % 2}.{os.getpid() % 256}"
        #: The ends that the switch holds, by the name of the node.
        self._ends: dict[str, int] = {}
        self._by_mac: dict[bytes, str] = {}
        #: Pairs (from, to) that nothing is passed on between.
        self._cut: frozenset[tuple[str, str]] = frozenset()
        self._stop, self._stopping = os.pipe()
        self._thread = threading.Thread(target=self._switch, name="switch of a test")

    def __enter__(self) -> Self:
        try:
            for at, name in enumerate(self._names):
                _must("netns", "add", self._namespace(name))
                self._plug(name, at + 1)
            self._plug(_HERE, len(self._names) + 1)
        except BaseException:
            self._remove()
            raise
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.write(self._stopping, b".")
        self._thread.join()
        self._remove()

    def host(self, name: str) -> str:
        """The address of a node, from everywhere in this network."""
        return f"{self._subnet}.{self._names.index(name) + 1}"

    def command(self, name: str) -> list[str]:
        """What runs a command in the place of a node."""
        return ["ip", "netns", "exec", self._namespace(name)]

    def cut_off(self, name: str, others: Collection[str]) -> None:
        """Nothing passes between a node and others, either way; its clients still reach it."""
        self._cut |= {(name, each) for each in others} | {(each, name) for each in others}

    def heal(self) -> None:
        """Everything passes."""
        self._cut = frozenset()

    def _namespace(self, name: str) -> str:
        return f"{self._prefix}{name}"

    def _plug(self, name: str, number: int) -> None:
        """Gives a namespace its interface."""
        device = f"{self._prefix}t{number}"
        mac = f"02:00:00:00:00:{number:02x}"
        end = self._ends[name] = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(end, _TUNSETIFF, struct.pack("16sH", device.encode(), _TAP_WITHOUT_HEADER))
        self._by_mac[bytes.fromhex(mac.replace(":", ""))] = name
        _must("link", "set", device, "address", mac)
        within: tuple[str, ...] = ()
        if name != _HERE:
            within = "-n", self._namespace(name)
            _must("link", "set", device, "netns", self._namespace(name))
            _must(*within, "link", "set", "lo", "up")
        _must(*within, "addr", "add", f"{self._subnet}.{number}/24", "dev", device)
        _must(*within, "link", "set", device, "up")

    def _remove(self) -> None:
        for end in self._ends.values():
            os.close(end)
        for name in self._names:
            _ip("netns", "del", self._namespace(name))
        os.close(self._stop)
        os.close(self._stopping)

    def _switch(self) -> None:
        names = {end: name for name, end in self._ends.items()}
        while True:
            ready, _, _ = select.select([*names, self._stop], [], [])
            if self._stop in ready:
                return
            for end in ready:
                self._pass_on(end, names[end])

    def _pass_on(self, end: int, source: str) -> None:
        while True:
            try:
                frame = os.read(end, _FRAME_BYTES_MAX)
            except BlockingIOError:
                return
            known = self._by_mac.get(frame[:_MAC_BYTES])
            for target in self._ends if known is None else [known]:
                if target != source and (source, target) not in self._cut:
                    # A full queue, or an interface that is not up yet, is a lost frame.
                    with suppress(OSError):
                        os.write(self._ends[target], frame)
