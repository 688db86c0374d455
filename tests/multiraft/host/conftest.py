"""Fixtures of the data lanes."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Iterator

import pytest

from rakit.multiraft import lane_port
from rakit.multiraft.config import LinkConfig
from rakit.multiraft.framed import FramedStream, dial
from tests.multiraft.host.lanes import PATIENT, MakeEnd
from tests.multiraft.host.support import End


@pytest.fixture
async def make() -> AsyncIterator[MakeEnd]:
    """Makes ends that serve."""
    ends: list[End] = []

    async def made(node_id: int, config: LinkConfig = PATIENT, *, framed: bool = True) -> End:
        ends.append(await End(node_id, config, framed=framed).serve())
        return ends[-1]

    yield made
    for each in ends:
        await each.close()


@pytest.fixture
def closed() -> Iterator[socket.socket]:
    """A port that nobody else gets, and at which nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The ports that were dialled, in turn."""
    ports: list[int] = []

    async def counted(address: str, port: int, timeout_s: float) -> FramedStream:
        ports.append(port)
        return await dial(address, port, timeout_s)

    monkeypatch.setattr(lane_port, "dial", counted)
    return ports
