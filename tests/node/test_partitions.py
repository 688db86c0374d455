"""The partitions of a node while its groups come and go."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import pytest

from rakit.api.v1.topic_service_pb2 import CreateTopicRequest
from rakit.multiraft.effects import RoleChange
from rakit.multiraft.machine import replica_id
from rakit.node.errors import RakitError, reason_name
from rakit.node.metadata import commands
from rakit.node.partition.partition import PartitionContext
from rakit.node.partitions import PartitionHost, Partitions
from rakit.raft import Role
from tests.node.metadata.support import Log


class Quarantined:
    """A host whose table of leaders still names a group that was just shut out for damage."""

    def __init__(self, group_id: int) -> None:
        self._group_id = group_id
        self.tell: Callable[[RoleChange], None]

    @property
    def leaders(self) -> Quarantined:
        return self

    def led_here(self) -> dict[int, int]:
        return {self._group_id: 3}

    def group(self, group_id: int) -> None:
        assert group_id == self._group_id

    def on_role(self, callback: Callable[[RoleChange], None]) -> Callable[[], None]:
        self.tell = callback
        return lambda: None


def test_s9_a_group_that_was_just_shut_out_does_not_end_the_node() -> None:
    log = Log().found()
    log.do(commands.create_topic(CreateTopicRequest(name="t")))
    (place,) = log.registry.partitions()
    host = Quarantined(place.group_id)
    partitions = Partitions(
        cast("PartitionHost", host), log.registry, cast("PartitionContext", None), lambda: False
    )
    partitions.upkeep()
    mine = replica_id(1, 1)
    host.tell(RoleChange(place.group_id, Role.LEADER, mine, term=3, ready=True))
    with pytest.raises(RakitError) as caught:
        partitions.get(place.group_id)
    assert reason_name(caught.value.reason) == "NODE_UNAVAILABLE"
