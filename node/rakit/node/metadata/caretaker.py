"""The keeper of the metadata group itself; it runs on every node and acts on the group's leader.

Four duties, one step at a time, each decided from the state as it is:

- The first leader of a new cluster writes the founding into the log. Every founder has it on disk,
  so whoever leads can; the state machine takes the first one.
- Every node of the registry has a replica, as a learner at least, so that every node can route.
- What this version writes and an earlier one does not read is written once every node is known to
  run this one: the feature level of the cluster is raised then, for good.
- Up to five of them vote. A replica of a store that was replaced is exchanged for a living one.
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from typing import Final

from rakit.multiraft.effects import RoleChange
from rakit.multiraft.hello import FEATURE_LEVEL
from rakit.node.errors import RakitError
from rakit.node.metadata.client import MetadataClient
from rakit.node.metadata.ports import HostPort
from rakit.node.metadata.registry import METADATA_GROUP_ID, Change
from rakit.node.metadata.tending import Tended, Wanted, tend
from rakit.peer.v1 import metadata_command_pb2 as pb

_log = logging.getLogger(__name__)

#: More voters cost every commit a larger majority; five survive two failures.
VOTERS_COUNT_MAX: Final = 5
#: Of a new cluster: its founders may be of several versions.
FOUNDING_LEVEL: Final = 1
#: How long to wait for a learner to catch up before looking again.
_LOOK_AGAIN_SECONDS: Final = 0.2


class Caretaker:
    """Looks after the metadata group while this node leads it."""

    def __init__(
        self, host: HostPort, client: MetadataClient, founding: pb.Founding | None
    ) -> None:
        self._host = host
        self._client = client
        self._founding = founding
        self._wake = asyncio.Event()
        self._wake.set()
        self._unsubscribe = [
            host.on_role(self._role_changed),
            host.on_node(self._node_changed),
            client.registry.subscribe(self._registry_changed),
        ]

    def close(self) -> None:
        """Ends the subscriptions."""
        while self._unsubscribe:
            self._unsubscribe.pop()()

    async def run(self) -> None:
        """Works until it is cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while (tended := await self._tend()) is not Tended.DONE:
                if tended is Tended.WAITING:
                    with suppress(TimeoutError):
                        async with asyncio.timeout(_LOOK_AGAIN_SECONDS):
                            await self._wake.wait()
                    self._wake.clear()

    async def _tend(self) -> Tended:
        group = self._host.group(METADATA_GROUP_ID)
        if group is None or not group.ready:
            return Tended.DONE
        if not self._client.registry.cluster_id:
            return await self._write_founding()
        if self._may_raise_level():
            return await self._raise_level()
        nodes = self._client.registry.nodes
        replicas = tuple(nodes[node_id].metadata_replica_id for node_id in sorted(nodes))
        return await tend(self._host, METADATA_GROUP_ID, Wanted(replicas, VOTERS_COUNT_MAX))

    async def _write_founding(self) -> Tended:
        if self._founding is None:
            # Only a founder can lead here, and this one's record was deleted by hand.
            _log.error("this node leads a new cluster but has lost formation.json; restart it")
            return Tended.DONE
        found = pb.FoundCluster(founding=self._founding, feature_level=FOUNDING_LEVEL)
        try:
            await self._client.submit(pb.MetadataCommand(found_cluster=found))
        except RakitError as error:
            _log.info("the founding is not written yet: %s", error)
            return Tended.WAITING
        return Tended.STEPPED

    def _may_raise_level(self) -> bool:
        """Whether the cluster may do more than it does: every node says now that it reads it.

        A node that is away keeps the level down: it may come back with an earlier version.
        """
        registry = self._client.registry
        return registry.feature_level < FEATURE_LEVEL and all(
            self._host.node_is_up(node.node_id)
            and self._host.feature_level(node.store_uuid) >= FEATURE_LEVEL
            for node in registry.nodes.values()
        )

    async def _raise_level(self) -> Tended:
        level = pb.RaiseFeatureLevel(feature_level=FEATURE_LEVEL)
        try:
            await self._client.submit(pb.MetadataCommand(raise_feature_level=level))
        except RakitError as error:
            _log.info("the feature level is not raised yet: %s", error)
            return Tended.WAITING
        _log.info("every node runs this version: the cluster's feature level is %d", FEATURE_LEVEL)
        return Tended.STEPPED

    def _role_changed(self, change: RoleChange) -> None:
        if change.group_id == METADATA_GROUP_ID and change.ready:
            self._wake.set()

    def _node_changed(self, node_id: int, up: bool) -> None:
        del node_id
        if up:
            self._wake.set()

    def _registry_changed(self, change: Change) -> None:
        if change.nodes or change.everything:
            self._wake.set()
