"""How a node comes to belong to a cluster: disk and network around the decisions of `founding`.

A `Formation` is made when the store is open and lives as long as the process. Its servicer is on
the peer listener from the first moment, because nodes that found a cluster must be able to ask each
other; `run` returns when this node is a member, at once on a disk that is one already. Later the
same servicer answers greetings of nodes that look for each other, and passes requests to join on to
the `MemberDuties` that the metadata service puts in.

Rules:

- What others will rely on is on the disk before they hear of it: a promise before the answer, the
  membership before a standing says so.
- A round collects answers and then decides. If this node's own record changed meanwhile, by a
  promise it was asked for, the answers are worth nothing, and a new round begins.
- The record is changed by one step at a time, under a lock; its file is written off the loop.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import grpc

from rakit.multiraft.hello import FEATURE_LEVEL
from rakit.node.metadata import founding as rules
from rakit.node.metadata import record as records
from rakit.node.metadata.greeter import Connect, Greeter, resolve
from rakit.node.metadata.record import Member
from rakit.node.metadata.refusals import NodeRefusedError, not_meant
from rakit.peer.v1 import metadata_command_pb2 as pb
from rakit.peer.v1 import metadata_service_pb2 as wire
from rakit.peer.v1.metadata_service_pb2_grpc import FormationServiceServicer

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FormationConfig:
    """Who this node is, and whom it asks."""

    #: `formation.json` in the data directory.
    path: Path
    #: With the uuid of the store that is open.
    description: pb.NodeDescription
    #: Peer addresses, host:port; a name stands for all its addresses.
    seeds: tuple[str, ...]
    #: Found a cluster with exactly this many nodes; 0: only ever join one.
    bootstrap_expect: int
    #: What the store's identity says, "" and 0 if nothing.
    known_cluster_id: str = ""
    known_node_id: int = 0
    #: Pause between rounds; it doubles up to the maximum while nothing happens.
    round_ms_min: int = 50
    round_ms_max: int = 250
    #: A node that does not answer within this time is silent in this round.
    greet_timeout_ms: int = 1_000
    #: An admission waits for a commit, and the leader may look for an old store first.
    join_timeout_ms: int = 10_000

    def __post_init__(self) -> None:
        """Refuses what cannot work."""
        assert self.description.store_uuid, "the store is open before a cluster is looked for"
        assert self.bootstrap_expect >= 0, "a cluster has nodes"
        assert 0 < self.round_ms_min <= self.round_ms_max, "the pause grows"
        assert min(self.greet_timeout_ms, self.join_timeout_ms) > 0, "answers take time"


class MemberDuties(Protocol):
    """What a member does beyond saying who it is."""

    def greeted(self, standing: wire.Standing) -> None:
        """Somebody said who it is and where."""
        ...

    def hints(self) -> Iterable[wire.PeerHint]:
        """Where the other nodes were reached."""
        ...

    async def admit(self, request: wire.JoinRequest) -> wire.JoinResponse:
        """Admits a node, or has the leader admit it; the request is meant for this one."""
        ...

    async def give_up(self, request: wire.GiveUpRequest) -> wire.GiveUpResponse:
        """Says whether the cluster can spare a store, or has the leader say it."""
        ...


class Formation:
    """This node on its way into a cluster, and its voice on the peer listener for ever after."""

    def __init__(self, config: FormationConfig, connect: Connect) -> None:
        self.config = config
        self.greeter = Greeter(connect, config.greet_timeout_ms)
        self.servicer = _Servicer(self)
        #: Put in by the metadata service once the host runs.
        self.duties: MemberDuties | None = None
        #: Likewise: which start of the store this is; 0 before its groups are started.
        self.boot_epoch = 0
        self._record = records.load(config.path, config.description.store_uuid)
        #: Grows whenever the record changes.
        self._record_version = 0
        self._changing = asyncio.Lock()
        self._view: rules.View | None = None
        self._news = asyncio.Event()
        self._last_why = ""

    @property
    def member(self) -> Member | None:
        """Who this node is, if it belongs to a cluster."""
        known = records.member_of(self._record)
        if known is None and self.config.known_node_id:
            # The record is gone, but the store remembers.
            return Member(
                self.config.known_cluster_id,
                self.config.known_node_id,
                self.config.description.store_uuid,
                metadata_replica_id=0,
            )
        return known

    def standing(self) -> wire.Standing:
        """Where this node stands, for whoever asks."""
        standing = wire.Standing(node=self.config.description, state=wire.FORMATION_STATE_EMPTY)
        if (member := self.member) is not None:
            standing.state = wire.FORMATION_STATE_MEMBER
            standing.cluster_id = member.cluster_id
            standing.node_id = member.node_id
            standing.boot_epoch = self.boot_epoch
            if member.founding is not None:
                standing.founding.CopyFrom(member.founding)
        elif self._record.HasField("founding"):
            standing.state = wire.FORMATION_STATE_PROMISED
            standing.founding.CopyFrom(self._record.founding)
        elif self.config.known_cluster_id:
            standing.state = wire.FORMATION_STATE_REJOINING
            standing.cluster_id = self.config.known_cluster_id
        return standing

    async def run(self) -> Member:
        """Returns when this node is a member; raises `NodeRefusedError` when it cannot be one."""
        pause_ms = self.config.round_ms_min
        while (member := self.member) is None:
            if await self._round():
                pause_ms = self.config.round_ms_min
                continue
            jittered = random.uniform(0.5, 1.0) * pause_ms / 1000
            try:
                async with asyncio.timeout(jittered):
                    await self._news.wait()
            except TimeoutError:
                pause_ms = min(2 * pause_ms, self.config.round_ms_max)
            self._news.clear()
        return member

    async def metadata_was_seen(self) -> None:
        """Notes that the metadata group works on this disk: should it be missing, it was lost."""
        async with self._changing:
            if self._record.HasField("member") and not self._record.metadata_seen:
                changed = wire.FormationRecord()
                changed.CopyFrom(self._record)
                changed.metadata_seen = True
                await self._write(changed)

    async def close(self) -> None:
        """Closes the channels to seeds."""
        await self.greeter.close()

    # The way in.

    async def _round(self) -> bool:
        """Asks around once and takes the next step; False when there was nothing to do."""
        version = self._record_version
        view = await self._look_around()
        if self._record_version != version:
            return True
        self._view = view
        step = rules.decide(
            self.config.description, self._disk(), self.config.bootstrap_expect, view
        )
        match step:
            case rules.Wait(why):
                self._say(why)
                return False
            case rules.Refuse(refusal, why):
                raise NodeRefusedError(refusal, why)
            case rules.Join(addresses, cluster_id):
                return await self._join(addresses, cluster_id, view)
            case rules.AskPromises(addresses):
                return await self._ask_promises(addresses, version)
            case rules.Found(begun):
                return await self._promise(begun, version)
            case rules.Withdraw(why):
                _log.warning("a promise to found a cluster is withdrawn: %s", why)
                return await self._promise(None, version)
            case rules.BecomeMember():
                return await self._become_founder(version)

    async def _look_around(self) -> rules.View:
        mine = self.standing()
        resolved = await resolve(self.config.seeds)
        greetings = (self.greeter.greet(address, mine) for address in resolved.addresses)
        answers = await asyncio.gather(*greetings)
        seen = {
            address: None if answer is None else answer.standing
            for address, answer in zip(resolved.addresses, answers, strict=True)
        }
        if not self.config.seeds:
            # Nobody to ask: a cluster of one, if that is what is expected.
            seen[self.config.description.peer_address] = mine
        return rules.View(seen, resolved.unresolved)

    def _disk(self) -> rules.Disk:
        promised = self._record.founding if self._record.HasField("founding") else None
        return rules.Disk(promised, self.config.known_cluster_id)

    async def _join(self, addresses: tuple[str, ...], cluster_id: str, view: rules.View) -> bool:
        request = wire.JoinRequest(node=self.config.description, feature_level=FEATURE_LEVEL)
        request.destination.cluster_id = cluster_id
        for address in random.sample(addresses, len(addresses)):
            asked = view.answers[address]
            assert asked is not None, "only who answered is asked"
            request.destination.node_id = asked.node_id
            timeout = self.config.join_timeout_ms / 1000
            response = await self.greeter.join(address, request, timeout)
            match None if response is None else response.WhichOneof("answer"):
                case "accepted":
                    assert response is not None, "an answer was chosen from it"
                    if response.accepted.cluster_id != cluster_id:
                        self._say(f"{address} admits to another cluster than it said it is of")
                        continue
                    async with self._changing:
                        await self._write(self._with_member(response.accepted))
                    return True
                case "refused":
                    assert response is not None, "an answer was chosen from it"
                    raise NodeRefusedError(response.refused.node_refusal, response.refused.message)
                case "wait":
                    assert response is not None, "an answer was chosen from it"
                    self._say(f"{address} says: {response.wait}")
                case _:
                    self._say(f"{address} did not answer the request to join")
        return False

    async def _promise(self, begun: pb.Founding | None, version: int) -> bool:
        """Writes or withdraws this node's own promise, unless something came in between."""
        async with self._changing:
            if self._record_version == version:
                changed = wire.FormationRecord(store_uuid=self._record.store_uuid, founding=begun)
                await self._write(changed)
        return True

    async def _ask_promises(self, addresses: tuple[str, ...], version: int) -> bool:
        request = wire.PromiseRequest(founding=self._record.founding)
        asked = (self.greeter.ask_promise(address, request) for address in addresses)
        answers = await asyncio.gather(*asked)
        if not all(answer is not None and answer.promised for answer in answers):
            self._say("not every founder has promised itself yet")
            return False
        return await self._become_founder(version)

    async def _become_founder(self, version: int) -> bool:
        """The founding is decided: writes down that this node is a member."""
        async with self._changing:
            if self._record_version != version:
                return True
            promised = self._record.founding
            node_id, replica = rules.founder_identity(promised, self._record.store_uuid)
            current = {one.node.store_uuid: one.node for one in self._latest_standings()}
            peers = [
                wire.PeerHint(
                    node_id=number,
                    address=current.get(member.store_uuid, member).peer_address,
                )
                for number, member in enumerate(promised.members, start=1)
                if number != node_id
            ]
            accepted = wire.JoinAccepted(
                cluster_id=promised.cluster_id,
                node_id=node_id,
                metadata_replica_id=replica,
                peers=peers,
            )
            await self._write(self._with_member(accepted))
        _log.info("founded cluster %s as node %d", promised.cluster_id, node_id)
        return True

    def _latest_standings(self) -> list[wire.Standing]:
        return [] if self._view is None else self._view.standings()

    def _with_member(self, accepted: wire.JoinAccepted) -> wire.FormationRecord:
        changed = wire.FormationRecord()
        changed.CopyFrom(self._record)
        changed.member.CopyFrom(accepted)
        return changed

    async def _write(self, changed: wire.FormationRecord) -> None:
        """Makes the record durable, then lets it hold."""
        assert self._changing.locked(), "one change at a time"
        await asyncio.to_thread(records.save, self.config.path, changed)
        self._record = changed
        self._record_version += 1

    def _say(self, why: str) -> None:
        """Logs why nothing happens, once for each reason."""
        if why != self._last_why:
            self._last_why = why
            _log.info("no cluster yet: %s", why)

    # What others ask.

    def greeted(self, standing: wire.Standing) -> wire.GreetResponse:
        """Answers a greeting and learns from it."""
        response = wire.GreetResponse(standing=self.standing())
        if self.duties is not None:
            self.duties.greeted(standing)
            response.hints.extend(self.duties.hints())
        elif self._is_news(standing):
            self._news.set()
        return response

    def _is_news(self, standing: wire.Standing) -> bool:
        """Whether a node said something that the last round did not know."""
        known = {one.node.store_uuid: one.state for one in self._latest_standings()}
        return known.get(standing.node.store_uuid) != standing.state

    async def asked_promise(self, asked: pb.Founding) -> wire.PromiseResponse:
        """Gives the one promise, or not."""
        async with self._changing:
            promised = self.member is None and rules.consider(
                self.config.description,
                self._disk(),
                self.config.bootstrap_expect,
                self._view,
                asked,
            )
            if promised and not self._record.HasField("founding"):
                await self._write(
                    wire.FormationRecord(store_uuid=self._record.store_uuid, founding=asked)
                )
        return wire.PromiseResponse(promised=promised, standing=self.standing())

    async def asked_to_admit(self, request: wire.JoinRequest) -> wire.JoinResponse:
        """Has the duties admit a node, if it is asked who is meant."""
        duties, member, meant = self.duties, self.member, request.destination
        if duties is None or member is None:
            return wire.JoinResponse(wait="this node is not ready to admit others yet")
        if (meant.cluster_id, meant.node_id) != (member.cluster_id, member.node_id):
            return wire.JoinResponse(wait=not_meant(member.cluster_id, member.node_id, meant))
        return await duties.admit(request)

    async def asked_to_spare(self, request: wire.GiveUpRequest) -> wire.GiveUpResponse:
        """Has the duties say whether a store can be spared."""
        if self.duties is None:
            return wire.GiveUpResponse(objection="the node that was asked is starting")
        return await self.duties.give_up(request)


class _Servicer(FormationServiceServicer):
    """The wire around a `Formation`."""

    def __init__(self, formation: Formation) -> None:
        self._formation = formation

    async def Greet(  # noqa: N802 - the name is given by the proto
        self, request: wire.GreetRequest, context: grpc.ServicerContext
    ) -> wire.GreetResponse:
        """See `Formation.greeted`."""
        del context
        return self._formation.greeted(request.standing)

    async def Promise(  # noqa: N802 - the name is given by the proto
        self, request: wire.PromiseRequest, context: grpc.ServicerContext
    ) -> wire.PromiseResponse:
        """See `Formation.asked_promise`."""
        del context
        return await self._formation.asked_promise(request.founding)

    async def Join(  # noqa: N802 - the name is given by the proto
        self, request: wire.JoinRequest, context: grpc.ServicerContext
    ) -> wire.JoinResponse:
        """See `Formation.asked_to_admit`."""
        del context
        return await self._formation.asked_to_admit(request)

    async def GiveUp(  # noqa: N802 - the name is given by the proto
        self, request: wire.GiveUpRequest, context: grpc.ServicerContext
    ) -> wire.GiveUpResponse:
        """See `Formation.asked_to_spare`."""
        del context
        return await self._formation.asked_to_spare(request)
