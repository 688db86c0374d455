"""What tests of the data lanes share: settings, a message to and fro, who serves it."""

# A test may look inside.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import dataclasses
import socket
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from rakit.multiraft.config import LinkConfig
from rakit.multiraft.hello import DATA, Lane, NodeIdentity
from rakit.multiraft.session import Session
from tests.multiraft.host.support import End, append, until

MakeEnd: TypeAlias = Callable[..., Awaitable[End]]
#: Tries a port that was of no use beside the lane only where a test asks for that.
PATIENT = LinkConfig(backoff_ms_max=100, lane_retry_ms_min=60_000)
#: Soon gives a silent port up.
SHORT = dataclasses.replace(PATIENT, lane_timeout_ms=500)
EAGER = dataclasses.replace(PATIENT, lane_retry_ms_min=1, lane_retry_ms_max=1)


def port_of(bound: socket.socket) -> int:
    """Where a socket is bound."""
    port: int = bound.getsockname()[1]
    return port


async def carries(a: End, b: End) -> None:
    """Has a message go from one end to the other and be worked off."""
    count = len(b.arrivals)
    a.transport.send([append(10, a.node_id, b.node_id)])
    await until(lambda: len(b.arrivals) == count + 1)
    b.step(b.arrivals[-1])


async def session(end: End, lane: Lane = DATA) -> Session:
    """What serves the lane that node 1 opened, which may know of that a moment earlier."""
    await until(lambda: (1, lane) in end.transport._sessions)
    return end.transport._sessions[1, lane]


def start(identity: NodeIdentity, epoch: int) -> NodeIdentity:
    """Another start of the same node."""
    return dataclasses.replace(identity, boot_epoch=epoch, opened_counter=1)
