"""Where the other nodes are, also when the registry does not know it any more.

The registry's addresses are used as long as they work. A node that moved tells its new address to
the leader, but to reach the leader it may have to find it first; and when a whole cluster comes
back at new addresses, nobody's registry is right. So while a node of the registry is down, this
node greets everybody it has heard of, about once a second: the seeds, the registry's addresses, the
addresses from which others greeted it, and what those it reached suggest. An address counts when
the node there answers with the right cluster, and for the node id that it answers with; until then
it is only a candidate. An address that answers is never given up for another one.

The first look, at the start, also tells whether the disk and the settings are of one cluster: seeds
that all belong to another one mean that somebody started a node on the wrong directory.

`AddressBook` decides, without effects; `Directory` is the task around it. When every node is up it
does nothing.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

from rakit.node.metadata.greeter import Greeter, resolve
from rakit.node.metadata.ports import HostPort
from rakit.node.metadata.refusals import NodeRefusedError
from rakit.node.metadata.registry import Change, NodeInfo, Registry
from rakit.peer.v1 import metadata_service_pb2 as wire
from rakit.peer.v1.metadata_command_pb2 import NODE_REFUSAL_IDENTITY_MISMATCH

#: Candidates beside seeds and registry; the oldest give way.
CANDIDATES_COUNT_MAX: Final = 256
_LOOK_SECONDS: Final = 1.0


@dataclass(slots=True)
class AddressBook:
    """The address to use for each node."""

    cluster_id: str
    node_id: int
    #: In use, by node id.
    current: dict[int, str] = field(default_factory=dict[int, str])
    #: The registry's word when it was last looked at.
    registered: dict[int, str] = field(default_factory=dict[int, str])
    #: Addresses worth a greeting, the oldest first.
    heard_of: dict[str, None] = field(default_factory=dict[str, None])

    def registry_says(self, nodes: Mapping[int, NodeInfo]) -> dict[int, str]:
        """Takes over addresses that are new in the registry; returns what is to be used now."""
        news: dict[int, str] = {}
        for node_id, node in nodes.items():
            if node_id != self.node_id and self.registered.get(node_id) != node.peer_address:
                self.registered[node_id] = node.peer_address
                news[node_id] = node.peer_address
        self.current.update(news)
        return news

    def heard(self, address: str) -> bool:
        """Notes an address that is worth a greeting; False if it is no news."""
        if not address or address in self.heard_of:
            return False
        self.heard_of[address] = None
        if len(self.heard_of) > CANDIDATES_COUNT_MAX:
            del self.heard_of[next(iter(self.heard_of))]
        return True

    def candidates(self, seeds: Iterable[str]) -> list[str]:
        """Every address that may be a node of this cluster."""
        return sorted({*seeds, *self.registered.values(), *self.current.values(), *self.heard_of})

    def answered(self, answers: Mapping[str, wire.Standing]) -> dict[int, str]:
        """Takes in who answered at which address; returns the nodes to be moved, and where to."""
        found: dict[int, list[str]] = {}
        advertised: dict[int, str] = {}
        for address, standing in sorted(answers.items()):
            member = standing.state == wire.FORMATION_STATE_MEMBER
            if member and standing.cluster_id == self.cluster_id:
                found.setdefault(standing.node_id, []).append(address)
                advertised[standing.node_id] = standing.node.peer_address
        moves: dict[int, str] = {}
        for node_id, addresses in found.items():
            if node_id == self.node_id or self.current.get(node_id) in addresses:
                continue
            own = advertised[node_id]
            moves[node_id] = own if own in addresses else addresses[0]
        self.current.update(moves)
        return moves


class Directory:
    """Tells the host where the other nodes are."""

    def __init__(
        self,
        host: HostPort,
        registry: Registry,
        greeter: Greeter,
        seeds: tuple[str, ...],
        standing: Callable[[], wire.Standing],
    ) -> None:
        me = standing()
        self.book = AddressBook(me.cluster_id, me.node_id)
        self._host = host
        self._registry = registry
        self._greeter = greeter
        self._seeds = seeds
        self._standing = standing
        self._wake = asyncio.Event()
        self._unsubscribe = [
            registry.subscribe(self._registry_changed),
            host.on_node(self._node_changed),
        ]

    def close(self) -> None:
        """Ends the subscriptions."""
        while self._unsubscribe:
            self._unsubscribe.pop()()

    def begin(self, peers: Mapping[int, str]) -> None:
        """Uses what the registry says, and for nodes that it does not know yet, `peers`."""
        for node_id, address in peers.items():
            if node_id != self._host.node_id:
                self._use(node_id, address)
        self._follow_registry()
        self._wake.set()

    def greeted(self, standing: wire.Standing) -> None:
        """A node said who it is and where it listens."""
        if standing.cluster_id != self.book.cluster_id:
            return
        news = self.book.heard(standing.node.peer_address)
        if news and not self._host.node_is_up(standing.node_id):
            self._wake.set()

    def hints(self) -> list[wire.PeerHint]:
        """Where the nodes are that are up."""
        return [
            wire.PeerHint(node_id=node_id, address=address)
            for node_id, address in sorted(self.book.current.items())
            if self._host.node_is_up(node_id)
        ]

    async def run(self) -> None:
        """Works until it is cancelled. Raises `NodeRefusedError` if the seeds are strangers."""
        check_strangers(self.book.cluster_id, await self._look_around())
        while True:
            await self._wake.wait()
            self._wake.clear()
            self._follow_registry()
            while self._missing():
                await self._look_around()
                with suppress(TimeoutError):
                    async with asyncio.timeout(_LOOK_SECONDS):
                        await self._wake.wait()
                self._wake.clear()
                self._follow_registry()

    def _missing(self) -> bool:
        """Whether a node that should be there is not; an empty registry misses everybody."""
        everybody = {*self._registry.nodes, *self.book.current}
        return not self._registry.nodes or any(
            not self._host.node_is_up(node_id) for node_id in everybody
        )

    async def _look_around(self) -> list[wire.Standing]:
        """Greets all candidates and moves the nodes that were found; returns what seeds said."""
        mine = self._standing()
        resolved = await resolve(self._seeds)
        candidates = self.book.candidates(resolved.addresses)
        answers = await asyncio.gather(*(self._greeter.greet(one, mine) for one in candidates))
        standings: dict[str, wire.Standing] = {}
        for address, answer in zip(candidates, answers, strict=True):
            if answer is None:
                continue
            found = answer.standing
            if self._registry.is_replaced(found.node_id, found.node.store_uuid):
                continue
            standings[address] = found
            for hint in answer.hints:
                self.book.heard(hint.address)
        for node_id, address in self.book.answered(standings).items():
            if not self._host.node_is_up(node_id):
                self._use(node_id, address)
        return [standings[one] for one in resolved.addresses if one in standings]

    def _use(self, node_id: int, address: str) -> None:
        self.book.current[node_id] = address
        self._host.set_peer(node_id, address)

    def _follow_registry(self) -> None:
        for node_id, address in self.book.registry_says(self._registry.nodes).items():
            self._use(node_id, address)

    def _registry_changed(self, change: Change) -> None:
        # Only a note: this is called while an entry is being applied.
        if change.nodes or change.everything:
            self._wake.set()

    def _node_changed(self, node_id: int, up: bool) -> None:
        del node_id
        if not up:
            self._wake.set()


def check_strangers(cluster_id: str, seeds: Iterable[wire.Standing]) -> None:
    """Raises `NodeRefusedError` if seeds belong to other clusters, and none to this one."""
    others = {one.cluster_id for one in seeds if one.state == wire.FORMATION_STATE_MEMBER}
    if others and cluster_id not in others:
        raise NodeRefusedError(
            NODE_REFUSAL_IDENTITY_MISMATCH,
            f"the data directory belongs to cluster {cluster_id}, but the seeds belong to"
            f" {', '.join(sorted(others))}; correct --seeds or --data-dir, or start with an empty"
            " directory",
        )
