"""How empty nodes become one cluster, and never two (S26). Decisions only; no disk, no network.

A node with an empty disk asks everybody whom its seeds name. The seeds of a cluster that is to be
founded name exactly `bootstrap_expect` nodes, each of them the node itself too; more nodes join
later. In every round a node has a `View`, one answer per address, and decides the next step:

- somebody is a member of a cluster: join it. An emptied disk of a living cluster ends here.
- all are there, empty, as many as expected, and this node has the lowest store uuid: it is the
  founder. It makes the founding (a fresh cluster id and all store uuids), promises itself to it on
  its own disk, and asks the others for their promises.
- it is asked for its promise: it gives it if its own view shows the same nodes, and only once.
- the founder has every promise: the founding is decided, and the founder is a member from then on.
  Everybody else learns that from any member. Nothing was served before.

A crash at any point changes nothing: the promise and the membership are on the disk, so the founder
resumes the same founding with the same cluster id, and the others give the same promise again.

A promise is withdrawn only when its founding has provably not happened, in a view that shows no
member of it. The founder alone decides a founding, so these are proofs:

- the founder itself sees, in a view that is complete, that the nodes are not those of its founding
  any more (one lost its disk, or the seeds were wrong), or that there is a cluster already. It has
  not decided, so nobody has, and it never will once the promise is gone from its disk.
- another node sees the founder without this founding, promised to another one, or as a member of
  another cluster. It has not decided and never will.
- another node sees that the founder's store is gone: as many stores as the founding has, and the
  founder's is not among them. Nobody who is left has joined the founding, and the only store that
  could have decided it does not exist any more. A view with fewer stores proves nothing: a name may
  stand for some of its addresses only, for a moment, and the founder has just decided.

Should the last proof fail all the same (the seeds were changed while nodes were founding), a member
knows better: it tells its founding, and an empty node whose store is named there promises itself
again. Its vote is counted on, and it has never given one.

Why there are never two clusters, even if a store came back from the dead: a founded cluster acts
only with a majority of its founders' stores, becoming a member is final for a disk, and two
majorities of the same nodes share a disk. Different nodes can found different clusters only if
their seeds name different nodes. The loss of every disk founds anew; nobody is left to know better.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from rakit.multiraft.machine import replica_id
from rakit.peer.v1 import metadata_command_pb2 as pb
from rakit.peer.v1.metadata_service_pb2 import (
    FORMATION_STATE_EMPTY,
    FORMATION_STATE_MEMBER,
    FORMATION_STATE_PROMISED,
    FORMATION_STATE_REJOINING,
    Standing,
)


@dataclass(frozen=True, slots=True)
class Disk:
    """What a node that is no member yet has on its disk about clusters."""

    #: The promise it has given.
    founding: pb.Founding | None = None
    #: The cluster it belongs to although its store is new: its database was lost (S11).
    cluster_id: str = ""


@dataclass(frozen=True, slots=True)
class View:
    """What the seeds answered in one round."""

    #: Address to standing; None: no answer. It includes this node, under its own address or a seed.
    answers: Mapping[str, Standing | None] = field(default_factory=dict[str, Standing | None])
    #: Seeds that are names without an address at the moment.
    unresolved: tuple[str, ...] = ()

    @property
    def silent(self) -> tuple[str, ...]:
        """Who did not answer, by address or name; nobody: the view is complete."""
        missing = [address for address, got in self.answers.items() if got is None]
        return (*self.unresolved, *sorted(missing))

    def standings(self) -> list[Standing]:
        """One standing of each store, by store uuid, however many addresses it has."""
        by_store = {got.node.store_uuid: got for got in self.answers.values() if got is not None}
        return [by_store[store] for store in sorted(by_store)]

    def addresses_of(self, store_uuids: Iterable[str]) -> dict[str, str]:
        """An address of each of these stores that answered."""
        wanted = set(store_uuids)
        return {
            got.node.store_uuid: address
            for address, got in sorted(self.answers.items(), reverse=True)
            if got is not None and got.node.store_uuid in wanted
        }


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do in this round; `why` is for the log and for a person who waits."""

    why: str


@dataclass(frozen=True, slots=True)
class Join:
    """Ask one of these members to be admitted."""

    addresses: tuple[str, ...]
    cluster_id: str


@dataclass(frozen=True, slots=True)
class Found:
    """Promise oneself to this founding: as its founder, or because a member says it is decided."""

    founding: pb.Founding


@dataclass(frozen=True, slots=True)
class AskPromises:
    """Ask these nodes for their promise; when all have given it, the founding is decided."""

    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class BecomeMember:
    """The founding that this node promised itself to is decided."""


@dataclass(frozen=True, slots=True)
class Withdraw:
    """Take the promise back: its founding has provably not happened."""

    why: str


@dataclass(frozen=True, slots=True)
class Refuse:
    """This node cannot belong to that cluster; it must stop."""

    refusal: pb.NodeRefusal.ValueType
    why: str


Step: TypeAlias = Wait | Join | Found | AskPromises | BecomeMember | Withdraw | Refuse


def decide(me: pb.NodeDescription, disk: Disk, expect: int, view: View) -> Step:
    """The next step of a node that belongs to no cluster yet, or lost its store."""
    standings = view.standings()
    members = [one for one in standings if one.state == FORMATION_STATE_MEMBER]
    if disk.founding is not None:
        return _decide_promised(me, disk.founding, view, members)
    if members:
        return _decide_again(me, members) or _decide_join(me, disk, view, members)
    if disk.cluster_id:
        return Wait(f"no member of cluster {disk.cluster_id}, which this node belongs to, answers")
    return _decide_empty(me, expect, view, standings)


def _decide_again(me: pb.NodeDescription, members: list[Standing]) -> Found | None:
    """Back to the founding of the one cluster there is, if this store is one of its founders."""
    if len({one.cluster_id for one in members}) > 1:
        return None
    for one in members:
        founders = {founder.store_uuid for founder in one.founding.members}
        if me.store_uuid in founders and one.founding.cluster_id == one.cluster_id:
            return Found(one.founding)
    return None


def _decide_join(
    me: pb.NodeDescription, disk: Disk, view: View, members: list[Standing]
) -> Join | Wait | Refuse:
    clusters = sorted({one.cluster_id for one in members})
    wanted = disk.cluster_id or clusters[0]
    if wanted not in clusters:
        return Refuse(
            pb.NODE_REFUSAL_IDENTITY_MISMATCH,
            f"the data directory belongs to cluster {wanted}, but the seeds belong to"
            f" {', '.join(clusters)}; correct --seeds, or start with an empty directory",
        )
    if len(clusters) > 1 and not disk.cluster_id:
        return Wait(f"the seeds belong to different clusters ({', '.join(clusters)})")
    for one in members:
        if one.node.store_uuid == me.store_uuid:
            return Wait("a seed answers with the identity of this node")
    stores = [one.node.store_uuid for one in members if one.cluster_id == wanted]
    addresses = view.addresses_of(stores)
    return Join(tuple(sorted(addresses.values())), wanted)


def _decide_empty(
    me: pb.NodeDescription, expect: int, view: View, standings: list[Standing]
) -> Found | Wait | Refuse:
    for one in standings:
        if one.node.name == me.name and one.node.store_uuid < me.store_uuid:
            return Refuse(
                pb.NODE_REFUSAL_NAME_TAKEN,
                f"two living nodes with one name: {me.name!r} is also the name of the node at"
                f" {one.node.peer_address}; start one of them with another --name",
            )
    why = _not_ready(me, expect, view, standings)
    if why:
        return Wait(why)
    founder = standings[0].node
    if founder.store_uuid != me.store_uuid:
        return Wait(f"waiting for the founder, {founder.name!r}")
    members = [one.node for one in standings]
    return Found(pb.Founding(cluster_id=str(uuid.uuid4()), members=members))


def _not_ready(me: pb.NodeDescription, expect: int, view: View, standings: list[Standing]) -> str:
    """Why the nodes of this view cannot found a cluster now; empty when they can."""
    if view.silent:
        return f"waiting for an answer from {', '.join(view.silent)}"
    if len(standings) != expect:
        return (
            f"the seeds name {len(standings)} nodes, but --bootstrap-expect is {expect}; a cluster"
            " is founded by exactly the nodes that the seeds name"
        )
    if me.store_uuid not in {one.node.store_uuid for one in standings}:
        return "this node is not among its seeds; it waits for them to found the cluster"
    if len({one.node.name for one in standings}) != expect:
        return "two of the seeds have one name"
    for one in standings:
        if one.state == FORMATION_STATE_REJOINING:
            return (
                f"the seed {one.node.name!r} belongs to cluster {one.cluster_id}, whose other"
                " nodes do not answer"
            )
        if one.state == FORMATION_STATE_PROMISED:
            return (
                f"the seed {one.node.name!r} has promised itself already; waiting for its founder"
            )
    return ""


def _decide_promised(
    me: pb.NodeDescription, founding: pb.Founding, view: View, members: list[Standing]
) -> AskPromises | BecomeMember | Withdraw | Wait:
    if any(one.cluster_id == founding.cluster_id for one in members):
        return BecomeMember()
    stores = [one.store_uuid for one in founding.members]
    founder = stores[0]
    seen = {one.node.store_uuid: one for one in view.standings()}
    if founder == me.store_uuid:
        return _decide_as_founder(stores, view, members)
    if founder in seen and seen[founder].founding.cluster_id != founding.cluster_id:
        return Withdraw("the founder has given this founding up")
    if members:
        return Wait(
            f"this node promised itself to found cluster {founding.cluster_id} with others, but a"
            f" seed belongs to cluster {members[0].cluster_id}; correct --seeds, or start with an"
            " empty directory"
        )
    if view.silent:
        return Wait(f"waiting for the founder; {', '.join(view.silent)} does not answer")
    if founder in seen:
        return Wait("waiting for the founder to collect all promises")
    if len(seen) < len(stores):
        return Wait(f"waiting for the founder; the seeds name {len(seen)} of {len(stores)} nodes")
    return Withdraw("the founder's store is gone, and nobody has joined its founding")


def _decide_as_founder(
    stores: list[str], view: View, members: list[Standing]
) -> AskPromises | Withdraw | Wait:
    """The next step of a founder that has not decided."""
    if members:
        return Withdraw(f"there is a cluster already, {members[0].cluster_id}")
    if not view.silent and [one.node.store_uuid for one in view.standings()] != stores:
        return Withdraw("the nodes are not those that were to found the cluster any more")
    addresses = view.addresses_of(stores[1:])
    if len(addresses) < len(stores) - 1:
        return Wait(f"waiting for all founders; {len(addresses) + 1} of {len(stores)} answer")
    return AskPromises(tuple(addresses[store] for store in stores[1:]))


def consider(
    me: pb.NodeDescription, disk: Disk, expect: int, view: View | None, asked: pb.Founding
) -> bool:
    """Whether to give the promise that a founder asks for. The answer yes is synced, then sent."""
    stores = [one.store_uuid for one in asked.members]
    if disk.founding is not None:
        mine = [one.store_uuid for one in disk.founding.members]
        return disk.founding.cluster_id == asked.cluster_id and mine == stores
    if disk.cluster_id or view is None or not asked.cluster_id:
        return False
    if stores != sorted(set(stores)) or stores[0] == me.store_uuid:
        return False
    standings = view.standings()
    others = [one.state for one in standings if one.node.store_uuid != stores[0]]
    return (
        not view.silent
        and len(stores) == expect
        and me.store_uuid in stores
        and stores == [one.node.store_uuid for one in standings]
        # The founder has promised itself before it asks; the rest may have been asked before me.
        and all(state in {FORMATION_STATE_EMPTY, FORMATION_STATE_PROMISED} for state in others)
    )


def founder_identity(founding: pb.Founding, store_uuid: str) -> tuple[int, int]:
    """Node id and metadata replica id of a founder; the machine gives out the same ones."""
    stores = [one.store_uuid for one in founding.members]
    node_id = stores.index(store_uuid) + 1
    return node_id, replica_id(node_id, node_id)


def first_voters(founding: pb.Founding) -> tuple[int, ...]:
    """The metadata group's first configuration: every founder votes."""
    return tuple(replica_id(node_id, node_id) for node_id in range(1, len(founding.members) + 1))
