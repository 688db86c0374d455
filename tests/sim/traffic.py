"""The clients of a world: who sends what to whom, and the way there and back.

While there is chaos, producers send batches to partitions, registrars names to the registry, and
anybody reads. After healing one more client of each group wants one more answer: a cluster that is
at rest and serves nobody is not healed.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial

from rakit.node.metadata.registry import METADATA_GROUP_ID
from rakit.node.partition.state import Stored
from tests.sim.broker import Answer, Broker, Refused
from tests.sim.clients import Oracle, Producer
from tests.sim.conditions import Conditional
from tests.sim.events import Events
from tests.sim.network import Network
from tests.sim.node import SimNode
from tests.sim.readers import Reading
from tests.sim.reading import ReadOracle
from tests.sim.registrars import Registrars

PRODUCERS = (0, 1, 2)
LATE_PRODUCER = 3
CONDITIONAL = 0.2  # of the runs have conditional producers as well


class Traffic:
    """Every client, and what they were told."""

    def __init__(
        self,
        rng: random.Random,
        events: Events,
        network: Network,
        nodes: dict[int, SimNode],
        group_ids: list[int],
        *,
        seed: int,
    ) -> None:
        self.rng = rng
        self.events = events
        self.network = network
        self.nodes = nodes
        self.group_ids = group_ids
        self.brokers: dict[int, Broker] = {}
        self.oracle = Oracle()
        self.registrars = Registrars()
        self.reads = ReadOracle()
        self.chaos = True
        #: Groups whose client has not been answered since the healing.
        self.unserved: set[int] = set()
        self.deleted: set[int] = set()
        #: Nodes whose disk has no room for new records: they turn producers away (S12).
        self.full: set[int] = set()
        self.bursts = 0
        #: Takes what clients send and are told, for a trace.
        self.note: Callable[..., None] | None = None
        self.producers = [
            Producer(producer_id, group_id, random.Random(rng.random()), self.oracle)
            for group_id in group_ids
            for producer_id in PRODUCERS
        ]

        self.reading = Reading(self, seed)
        rng = random.Random(f"the conditions of {seed}")
        self.conditional = rng.random() < CONDITIONAL
        if self.conditional:
            self.producers += [Conditional(one, rng, self.oracle) for one in group_ids]

    def begin(self) -> None:
        for producer in self.producers:
            self.events.later(300, partial(self._turn, producer))
        self.reading.begin()

    def delete(self, group_id: int) -> None:
        """The group is gone: nobody asks for it any more."""
        self.deleted.add(group_id)

    def ask_once_more(self, *, registry: bool) -> None:
        """Wants one more answer from each group."""
        self.unserved = set(self.group_ids) - self.deleted
        for group_id in sorted(self.unserved):
            rng = random.Random(self.rng.random())
            late = Producer(LATE_PRODUCER, group_id, rng, self.oracle)
            self.events.later(1, partial(self._turn, late))
        if registry:
            self.unserved.add(METADATA_GROUP_ID)
            self._register(self.registrars.answers)

    def counts(self) -> dict[str, int]:
        """What clients met that not all runs have."""
        refusals = sum(one.refusals for one in self.producers if isinstance(one, Conditional))
        counts = {
            "conditional append": int(self.conditional),
            "conditional append refused": refusals,
            "read by a client": self.reading.given,
        }
        return {name: count for name, count in counts.items() if count}

    def busy(self) -> bool:
        """Whether somebody waits for an answer that must come."""
        return bool(
            self.unserved
            or self.reads.waiting
            or self.reading.behind()
            or any(broker.waiting for broker in self.brokers.values())
        )

    def _up(self) -> list[int]:
        return [node_id for node_id, node in self.nodes.items() if node.driver is not None]

    def _turn(self, producer: Producer) -> None:
        group_id = producer.group_id
        if group_id in self.deleted:
            return
        wanted = self.chaos
        if producer.producer_id == LATE_PRODUCER:
            wanted = group_id in self.unserved
        nodes = self._up()
        if nodes and wanted:
            producer.turn(self.events.now_ms, nodes, self._request)
        if wanted or producer.waiting_since_ms >= 0:
            self.events.later(producer.rng.randint(10, 90), partial(self._turn, producer))

    def _request(self, node_id: int, producer: Producer, attempt: int) -> None:
        """One request to one node; the way there and the way back may each fail."""
        sent, stamp = producer.current, producer.stamp()
        assert sent is not None, "a request carries a batch"
        lossy = self.network.weather.loss

        def told(answer: Answer) -> None:
            if producer.producer_id == LATE_PRODUCER and isinstance(answer, Stored):
                self.unserved.discard(producer.group_id)
            if self.note is not None:
                who = f"producer {producer.producer_id} <- {node_id}"
                self.note(who, sent.batch.content, answer, group=producer.group_id)
            producer.answered(attempt, sent, answer)

        def reply(answer: Answer) -> None:
            if self.rng.random() >= lossy:
                self.events.later(1, lambda: told(answer))

        def arrive() -> None:
            node = self.nodes[node_id]
            if node_id in self.full:
                reply(Refused("no room", elsewhere=True))
                return
            broker = self.brokers[node_id]
            broker.append(producer.group_id, sent.batch, stamp, reply, sent.expected_offset)
            node.step()

        if self.note is not None:
            who = f"producer {producer.producer_id} -> {node_id}"
            self.note(who, sent.batch.content, stamp or "", group=producer.group_id)
        if self.rng.random() >= lossy:
            self.events.later(1, arrive, node_id)

    def _register(self, answers: int) -> None:
        """Asks every node to register a name, until there are more than so many answers."""
        if self.registrars.answers > answers:
            self.unserved.discard(METADATA_GROUP_ID)
            return
        for node_id in self._up():
            driver = self.nodes[node_id].driver
            assert driver is not None, "just looked"
            self.registrars.register(driver, self.brokers[node_id].now_ms(), self.rng)
            self.nodes[node_id].step()
        self.events.later(100, partial(self._register, answers))

    def burst(self, node_id: int, group_id: int, count: int) -> None:
        """Clients that send one batch each, to one node, and do not wait for the answer."""
        for _ in range(count):
            self.bursts += 1
            client = Producer(0, group_id, self.rng, self.oracle, serial=1_000_000 + self.bursts)
            self.events.later(0, partial(self._send_once, client, node_id), node_id)

    def _send_once(self, client: Producer, node_id: int) -> None:
        client.turn(self.events.now_ms, [node_id], self._request)

    def crashed(self, node_id: int) -> None:
        self.brokers.pop(node_id)
        self.reads.forget(node_id)
