"""Clients of the metadata group: producers that register their names (S24).

Each registration bumps the epoch of its name. The oracle: no two are told the same epoch, one that
began after another was answered is told a higher one, and in the end the registry stands at least
where somebody was told that it stood.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from rakit.multiraft.driver import Driver
from rakit.multiraft.effects import Completion
from rakit.multiraft.errors import ProposalRefusedError
from rakit.node.metadata import commands
from rakit.node.metadata.machine import MetadataMachine
from rakit.node.metadata.registry import METADATA_GROUP_ID
from rakit.peer.v1 import metadata_command_pb2 as pb
from tests.sim.violations import Invariant, ViolationError

_NAMES = ("a", "b", "c")
#: Every founder may propose it, however often; the first one counts.
_FOUNDING = pb.MetadataCommand(
    found_cluster=pb.FoundCluster(
        founding=pb.Founding(
            cluster_id="cluster", members=[pb.NodeDescription(name="n1", store_uuid="store-1")]
        )
    )
)


@dataclass(frozen=True, slots=True)
class Registration:
    """One under way; the token of its proposal."""

    name: str
    # The highest epoch that anybody had been told when it began.
    floor: int


@dataclass(slots=True)
class Registrars:
    """All of them, and what they were told."""

    ids: dict[str, int] = field(default_factory=dict[str, int])
    highest: dict[str, int] = field(default_factory=dict[str, int])
    told: set[tuple[str, int]] = field(default_factory=set[tuple[str, int]])
    answers: int = 0

    def register(self, driver: Driver, now_ms: int, rng: random.Random) -> None:
        """Asks a node; one that does not lead refuses. The founding comes before all others."""
        group = driver.group(METADATA_GROUP_ID)
        if group is None:
            return
        machine = group.machine
        assert isinstance(machine, MetadataMachine), "group 1 is the registry"
        name = rng.choice(_NAMES)
        founded = bool(machine.registry.cluster_id)
        command = commands.init_producer(name) if founded else _FOUNDING
        command.time_ms = now_ms
        token = Registration(name, self.highest.get(name, 0)) if founded else None
        try:
            driver.propose(METADATA_GROUP_ID, (command.SerializeToString(),), token)
        except ProposalRefusedError:
            return

    def completed(self, completion: Completion) -> None:
        token, result = completion.token, completion.result
        if completion.lost or not isinstance(token, Registration):
            return
        assert isinstance(result, pb.MetadataResult), "a command leads to a result"
        self.answers += 1
        ready = result.producer_ready
        if (token.name, ready.epoch) in self.told or ready.epoch <= token.floor:
            raise ViolationError(Invariant.EPOCHS, f"{token} was told epoch {ready.epoch}")
        if self.ids.setdefault(token.name, ready.producer_id) != ready.producer_id:
            raise ViolationError(
                Invariant.EPOCHS, f"{token} was told a second id, {ready.producer_id}"
            )
        self.told.add((token.name, ready.epoch))
        self.highest[token.name] = max(ready.epoch, self.highest.get(token.name, 0))

    def judge(self, machine: MetadataMachine) -> None:
        for name, epoch in self.highest.items():
            known = machine.registry.producers.get(name)
            if known is None or known.epoch < epoch:
                raise ViolationError(
                    Invariant.EPOCHS, f"epoch {epoch} of {name!r} was told; there is {known}"
                )
