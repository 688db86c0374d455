"""The cluster's feature level: raised for good, and only when every node is known to read it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

from rakit.multiraft.hello import FEATURE_LEVEL
from rakit.node.metadata import caretaker as caretaker_module
from rakit.node.metadata import nodes
from rakit.node.metadata.caretaker import Caretaker
from rakit.node.metadata.client import MetadataClient
from rakit.node.metadata.machine import MetadataMachine
from rakit.node.metadata.tending import Tended
from rakit.peer.v1 import metadata_command_pb2 as pb
from tests.node.metadata.doubles import FakeHost
from tests.node.metadata.machines import until
from tests.node.metadata.support import Log, describe, register


class Setting:
    """A leader of the metadata group whose members need nothing."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.log = Log().found()
        self.host = FakeHost(1, self.log)
        self.host.leaders.becomes(1)
        self.host.here.ready = True
        self.host.up = {1, 2, 3, 4}
        self.looks = 0
        monkeypatch.setattr(caretaker_module, "tend", self.tend)

    async def tend(self, *_all: object) -> Tended:
        self.looks += 1
        return Tended.DONE

    @property
    def level(self) -> int:
        return self.log.registry.feature_level

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        client = MetadataClient(self.host, self.log.registry, lambda: 77)
        caretaker = Caretaker(self.host, client, None)
        task = asyncio.create_task(caretaker.run())
        try:
            yield
        finally:
            caretaker.close()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


async def test_the_level_is_raised_when_the_last_node_is_known_to_read_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    setting = Setting(monkeypatch)
    setting.host.levels = {"store-n1": FEATURE_LEVEL, "store-n2": FEATURE_LEVEL, "store-n3": 1}
    async with setting.running():
        await until(lambda: setting.looks)
        assert setting.level < FEATURE_LEVEL
        setting.host.levels["store-n3"] = FEATURE_LEVEL
        setting.log.do(register(describe("n3", address="elsewhere:7071"), node_id=3))
        await until(lambda: setting.level == FEATURE_LEVEL)
        await until(lambda: setting.looks > 1)
    assert len(setting.host.proposed) == 1


async def test_what_a_node_said_that_is_away_does_not_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It may come back with an earlier version."""
    setting = Setting(monkeypatch)
    setting.host.levels = {f"store-n{number}": FEATURE_LEVEL for number in (1, 2, 3)}
    setting.host.up.remove(3)
    async with setting.running():
        await until(lambda: setting.looks)
    assert setting.host.proposed == []


async def test_a_node_that_nobody_has_heard_of_keeps_it_down(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    setting = Setting(monkeypatch)
    setting.host.levels = {f"store-n{number}": FEATURE_LEVEL for number in (1, 2, 3)}
    setting.log.do(register(describe("n4")))
    async with setting.running():
        await until(lambda: setting.looks)
    assert setting.host.proposed == []


def raise_to(log: Log, level: int) -> None:
    log.do(pb.MetadataCommand(raise_feature_level=pb.RaiseFeatureLevel(feature_level=level)))


def test_the_level_never_falls_and_is_part_of_the_state() -> None:
    log = Log().found()
    raise_to(log, FEATURE_LEVEL)
    raise_to(log, FEATURE_LEVEL - 1)
    assert log.registry.feature_level == FEATURE_LEVEL
    other = MetadataMachine()
    other.restore(log.machine.snapshot(), log.entries[-1].index)
    assert other.registry.feature_level == FEATURE_LEVEL


def test_a_replica_stops_at_a_level_that_its_version_does_not_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log = Log().found()
    with pytest.raises(AssertionError, match="run the version that the other nodes run"):
        raise_to(log, FEATURE_LEVEL + 1)
    raise_to(log, FEATURE_LEVEL)
    data = log.machine.snapshot()
    monkeypatch.setattr(nodes, "FEATURE_LEVEL", FEATURE_LEVEL - 1)
    with pytest.raises(AssertionError, match="run the version that the other nodes run"):
        MetadataMachine().restore(data, log.entries[-1].index)
