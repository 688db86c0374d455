"""Nothing that a peer says ends a node: at worst it shuts out one group (S9).

Messages of every kind with plausible and implausible numbers reach a replica in every role. What
comes of them is refused, taken, or the end of this replica; an assertion would be the end of all.
"""

from __future__ import annotations

import random

import pytest

from rakit.multiraft.driver import Envelope, Group
from rakit.multiraft.errors import ProposalRefusedError
from rakit.multiraft.machine import replica_id
from rakit.raft import (
    ConfChange,
    ConfChangeSingle,
    ConfChangeType,
    ConfState,
    Entry,
    EntryType,
    Message,
    MessageType,
    Snapshot,
    messages,
)
from tests.multiraft.driver.cluster import GROUP, Cluster, Node

OTHER = 8
OWN = replica_id(1, 1)
PEERS = (replica_id(2, 1), replica_id(3, 1), replica_id(9, 1))
CONF = ConfState(voters=(OWN, *PEERS[:2]))
STRANGE_CONFS = (
    ConfState(),
    ConfState(voters=(3, 1)),
    ConfState(voters=(PEERS[0],)),
    ConfState(voters=CONF.voters, learners=CONF.voters),
)
CONTEXTS = (
    b"",
    b"",
    messages.FORCED,
    b"farewell",
    b"quiesce:",
    b"quiesce:" + bytes(18),
    messages.encode_boot(1),
    bytes(7) + b"\1",
)


class Stranger:
    """Makes up messages for a replica, near enough to its state to be taken seriously."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)

    def number(self, near: int) -> int:
        kind = self.rng.choices(["near", "small", "zero", "below", "far"], [75, 10, 7, 3, 5])[0]
        match kind:
            case "near":
                return max(0, near + self.rng.randint(-3, 3))
            case "small":
                return self.rng.randint(0, 12)
            case "zero":
                return 0
            case "below":
                return -self.rng.randint(1, 5)
            case _:
                return 1 << 40

    def message(self, group: Group) -> Message:
        rng, status = self.rng, group.raw.basic_status()
        kind = rng.choice(list(MessageType))
        index, log_term = self.number(status.last_index), self.number(status.term)
        stamp = messages.encode_stamp(rng.randint(1, 3), doubtful=rng.random() < 0.5)
        return Message(
            kind,
            OWN,
            rng.choice(PEERS),
            self.number(status.term),
            log_term,
            index,
            self.entries(index, log_term) if kind is MessageType.APP else (),
            self.number(status.commit),
            rng.random() < 0.3,
            self.number(index),
            rng.choice([stamp, *CONTEXTS]),
            self.base(group) if kind is MessageType.SNAP and rng.random() < 0.9 else None,
        )

    def entries(self, index: int, term: int) -> tuple[Entry, ...]:
        rng = self.rng
        found: list[Entry] = []
        for position in range(rng.randint(0, 3)):
            term += rng.random() < 0.3
            found.append(
                Entry(
                    term if rng.random() < 0.95 else self.number(term),
                    index + 1 + position if rng.random() < 0.97 else self.number(index),
                    rng.choice([EntryType.NORMAL] * 5 + [EntryType.CONF_CHANGE]),
                    rng.choice([b"", b"x", b"boom", self.change()]),
                )
            )
        return tuple(found)

    def change(self) -> bytes:
        replica = self.rng.choice([OWN, *PEERS, 0])
        step = ConfChangeSingle(self.rng.choice(list(ConfChangeType)), replica)
        return ConfChange((step,) * self.rng.randint(1, 2)).encode()

    def base(self, group: Group) -> Snapshot:
        conf = self.rng.choice([CONF, CONF, CONF, *STRANGE_CONFS])
        data = self.rng.choice([b"", b"0 0\nx", b"junk"])
        return Snapshot(self.number(group.commit + 2), self.number(group.term), conf, data)


def do_something(node: Node, stranger: Stranger) -> None:
    """One input of a driver: mostly a message."""
    group, driver = node.driver.groups[GROUP], node.driver
    match stranger.rng.choices(
        ["message", "ticks", "campaign", "propose", "read", "disk"], [16, 2, 1, 1, 1, 1]
    )[0]:
        case "ticks":
            for _ in range(stranger.rng.randint(1, 30)):
                driver.tick()
        case "campaign":
            driver.campaign(GROUP)
        case "propose":
            try:
                driver.propose(GROUP, (b"p",), None)
            except ProposalRefusedError:
                return
        case "read":
            driver.read_index(GROUP, "read")
        case "disk":
            node.hung = not node.hung
        case _:
            message = stranger.message(group)
            driver.receive(Envelope(GROUP, message.from_, OWN, message))


@pytest.mark.parametrize("seed", range(120))
def test_s9_no_message_of_a_peer_ends_a_node(seed: int) -> None:
    stranger = Stranger(seed)
    cluster = Cluster(seed=seed)
    cluster.create()
    cluster.create(OTHER, (1,))
    if stranger.rng.random() < 0.6:
        cluster.run_until(cluster.leads)
        cluster.settle()
    node = cluster.nodes[1]
    cluster.filter = lambda _: False
    for _ in range(60):
        if node.driver.group(GROUP) is None:
            break
        do_something(node, stranger)
        if stranger.rng.random() < 0.8:
            cluster.step_node(node)
            cluster.network.clear()
    node.hung = False
    while cluster.step_node(node):
        pass
    node.driver.propose(OTHER, (b"still here",), "token")
    while cluster.step_node(node):
        pass
    assert node.machine(OTHER).items == [b"still here"]
