"""Random failures on a few seeds: the smoke test before the simulator takes over."""

from __future__ import annotations

import random
from contextlib import suppress

import pytest

from rakit.multiraft.driver import DriverConfig, Envelope
from rakit.multiraft.errors import NotLeadingError
from tests.multiraft.driver.cluster import GROUP, Cluster, Node

GROUPS = (GROUP, GROUP + 1)


class Chaos:
    """Proposes all the time while messages are lost, disks hang and nodes crash."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        config = DriverConfig(quiesce_ticks=6, batch_bytes_max=4096, message_bytes_max=1024)
        self.cluster = Cluster(seed=seed, config=config)
        self.acknowledged: dict[int, set[bytes]] = {group_id: set() for group_id in GROUPS}
        self.answered: set[object] = set()
        self.asked: set[object] = set()
        self.number = 0
        for group_id in GROUPS:
            self.cluster.create(group_id)
        self.cluster.pump()
        self.cluster.filter = self.passes

    def passes(self, envelope: Envelope) -> bool:
        fate = self.rng.random()
        if fate < 0.04:
            # A duplicate that arrives later.
            self.cluster.network.append(envelope)
        return fate < 0.93

    def run(self, steps: int) -> None:
        for _ in range(steps):
            self.step()
            self.collect()

    def step(self) -> None:
        rng = self.rng
        nodes = list(self.cluster.nodes.values())
        action = rng.randrange(100)
        node = rng.choice(nodes)
        if action < 45:
            self.propose(rng.choice(GROUPS))
        elif action < 50:
            node.hung = not node.hung
        elif action < 55 and not node.down and not any(one.down for one in nodes):
            self.crash(node)
        elif action < 62:
            for one in nodes:
                if one.down:
                    self.cluster.restart(one)
        elif action < 65 and not node.down:
            node.driver.disk_stalled()
        elif action < 70 and not node.down:
            for group_id in node.driver.groups:
                node.driver.read_index(group_id, object())
        self.cluster.tick(rng.randrange(3))

    def propose(self, group_id: int) -> None:
        leader = self.cluster.leader(group_id)
        if leader is None:
            return
        for _ in range(self.rng.randint(1, 3)):
            self.number += 1
            kinds = [b"x" * self.rng.randrange(2000), b"checkpoint", b"trim"]
            data = b"%d " % self.number + self.rng.choices(kinds, (8, 1, 1))[0]
            token = data
            # A transfer may be under way.
            with suppress(NotLeadingError):
                leader.driver.propose(group_id, (data,), token)
                self.asked.add(token)

    def crash(self, node: Node) -> None:
        self.collect()
        self.cluster.crash(node, self.rng.randrange(4))
        node.hung = False
        self.cluster.report_down(node)

    def collect(self) -> None:
        for node in self.cluster.nodes.values():
            for done in node.completions:
                assert done.token in self.asked
                assert done.token not in self.answered, "a proposal was answered twice"
                self.answered.add(done.token)
                if not done.lost:
                    assert isinstance(done.token, bytes)
                    self.acknowledged[done.group_id].add(done.token)
            node.completions.clear()
            assert node.quarantined == []

    def heal(self) -> None:
        self.cluster.heal()
        for node in self.cluster.nodes.values():
            node.hung = False
            if node.down:
                self.cluster.restart(node)
        self.cluster.report_all_up()
        for group_id in GROUPS:
            leads = lambda group_id=group_id: self.cluster.leads(group_id)  # noqa: E731
            self.cluster.run_until(leads, ticks=200)
        self.cluster.tick(80)
        self.collect()


@pytest.mark.parametrize("seed", range(12))
def test_nothing_acknowledged_is_lost_or_doubled_under_random_failures(seed: int) -> None:
    chaos = Chaos(seed)
    chaos.run(150)
    chaos.heal()
    for group_id in GROUPS:
        items = chaos.cluster.check_replicas_agree(group_id)
        assert len(set(items)) == len(items), "a proposal was applied twice"
        missing = chaos.acknowledged[group_id] - set(items)
        assert not missing, "an acknowledged proposal is gone"
        for node in chaos.cluster.nodes.values():
            assert node.driver.groups[group_id].quiet, "the group does not come to rest"
    assert sum(len(found) for found in chaos.acknowledged.values()) > 5
