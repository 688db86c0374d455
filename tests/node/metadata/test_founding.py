"""S26: empty nodes become one cluster, never two, through crashes, lost messages and lost disks.

`World` runs the real decisions over a simulated network and simulated disks. Every node is a
generator that yields before each message and each write, so that a crash can strike anywhere.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import pytest

from rakit.node.metadata import founding
from rakit.node.metadata.founding import Disk, View
from rakit.peer.v1 import metadata_command_pb2 as pb
from rakit.peer.v1 import metadata_service_pb2 as service_pb

SEEDS: Final = 300


@dataclass
class Node:
    """One machine: what is on its disk, and what its process knows."""

    name: str
    description: pb.NodeDescription
    disk: Disk = field(default_factory=Disk)
    cluster_id: str = ""
    founder: bool = False
    # Of the process.
    up: bool = True
    version: int = 0
    view: View | None = None
    life: Iterator[None] | None = None
    refused: str = ""

    def standing(self) -> service_pb.Standing:
        standing = service_pb.Standing(node=self.description)
        if self.cluster_id:
            standing.state = service_pb.FORMATION_STATE_MEMBER
            standing.cluster_id = self.cluster_id
            if self.founder and self.disk.founding is not None:
                standing.founding.CopyFrom(self.disk.founding)
        elif self.disk.founding is not None:
            standing.state = service_pb.FORMATION_STATE_PROMISED
            standing.founding.CopyFrom(self.disk.founding)
        else:
            standing.state = service_pb.FORMATION_STATE_EMPTY
        return standing


class World:
    def __init__(self, rng: random.Random, count: int) -> None:
        self.rng = rng
        self.loss = 0.0
        # How often the seeds' name stands for some of the nodes only.
        self.omission = 0.0
        self.nodes: dict[str, Node] = {}
        for number in range(count):
            name = f"n{number}"
            self.nodes[name] = Node(name, self.describe(name))
        # What each node was started with; it expects so many nodes as it names.
        self.seeds = {name: list(self.nodes) for name in self.nodes}

    def describe(self, name: str) -> pb.NodeDescription:
        store = f"{self.rng.getrandbits(64):016x}"
        return pb.NodeDescription(name=name, store_uuid=store, peer_address=name)

    def lost(self) -> bool:
        return self.rng.random() < self.loss

    def named(self, name: str) -> list[str]:
        """Whom a node's seeds name in this round."""
        names = self.seeds[name]
        if self.rng.random() < self.omission:
            return sorted(self.rng.sample(names, self.rng.randint(0, len(names))))
        return names

    def greet(self, name: str) -> service_pb.Standing | None:
        node = self.nodes[name]
        return None if self.lost() or not node.up or self.lost() else node.standing()

    def ask(self, name: str, asked: pb.Founding) -> bool:
        """Asks for a promise; the answer may be lost after the promise was synced."""
        node = self.nodes[name]
        if self.lost() or not node.up or node.cluster_id:
            return False
        expect = len(self.seeds[name])
        if not founding.consider(node.description, node.disk, expect, node.view, asked):
            return False
        node.disk = Disk(founding=asked)
        node.version += 1
        return not self.lost()

    def live(self, node: Node) -> Iterator[None]:
        """What a process does; nothing of it survives a crash but the disk."""
        while not node.cluster_id and not node.refused:
            answers: dict[str, service_pb.Standing | None] = {}
            version = node.version
            for name in self.named(node.name):
                yield
                answers[name] = node.standing() if name == node.name else self.greet(name)
            node.view = View(answers)
            if node.version != version:
                continue
            expect = len(self.seeds[node.name])
            step = founding.decide(node.description, node.disk, expect, node.view)
            yield
            if node.version != version:
                continue
            node.version += 1
            yield from self.take(node, step)

    def take(self, node: Node, step: founding.Step) -> Iterator[None]:
        match step:
            case founding.Found(begun):
                node.disk = Disk(founding=begun)
            case founding.Withdraw():
                node.disk = Disk()
            case founding.AskPromises(addresses):
                promised = node.disk.founding
                assert promised is not None
                for address in addresses:
                    yield
                    if not self.ask(address, promised):
                        return
                yield
                self.become(node, promised)
            case founding.BecomeMember():
                assert node.disk.founding is not None
                self.become(node, node.disk.founding)
            case founding.Join(cluster_id=cluster_id):
                if self.acts(cluster_id):
                    node.cluster_id = cluster_id
            case founding.Refuse(why=why):
                node.refused = why
            case founding.Wait():
                pass

    def become(self, node: Node, promised: pb.Founding) -> None:
        node.cluster_id = promised.cluster_id
        node.founder = True

    def acts(self, cluster_id: str) -> bool:
        """A majority of the founders' stores is there: the cluster can commit."""
        for node in self.nodes.values():
            if node.cluster_id == cluster_id and node.founder:
                assert node.disk.founding is not None
                total = len(node.disk.founding.members)
                alive = [n for n in self.nodes.values() if n.cluster_id == cluster_id and n.founder]
                return len(alive) > total // 2
        return False

    def step(self, node: Node) -> None:
        if not node.up:
            return
        if node.life is None:
            node.life = self.live(node)
        next(node.life, None)

    def crash(self, node: Node) -> None:
        node.up = False
        node.life = None
        node.view = None

    def lose_disk(self, node: Node) -> None:
        self.crash(node)
        node.description = self.describe(node.name)
        node.disk = Disk()
        node.cluster_id = ""
        node.founder = False

    def clusters(self) -> set[str]:
        return {n.cluster_id for n in self.nodes.values() if n.cluster_id}


def storm(world: World, steps: int, disks_to_lose: int) -> None:
    rng = world.rng
    world.loss = rng.choice([0.0, 0.1, 0.4])
    world.omission = rng.choice([0.0, 0.2, 0.7])
    for _ in range(steps):
        node = rng.choice(list(world.nodes.values()))
        luck = rng.random()
        if luck < 0.02:
            world.crash(node)
        elif luck < 0.06:
            node.up = True
        elif luck < 0.065 and disks_to_lose:
            disks_to_lose -= 1
            world.lose_disk(node)
        else:
            world.step(node)
        effective = {one for one in world.clusters() if world.acts(one)}
        assert len(effective) <= 1, "two clusters act"


def heal(world: World) -> None:
    world.loss = world.omission = 0.0
    for node in world.nodes.values():
        node.up = True
    for _ in range(3_000):
        for node in world.nodes.values():
            world.step(node)
        if all(node.cluster_id for node in world.nodes.values()):
            return
    raise AssertionError(f"no cluster: {[n.standing() for n in world.nodes.values()]}")


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_s26_one_cluster_comes_out_of_crashes_and_lost_messages(count: int) -> None:
    for seed in range(SEEDS):
        world = World(random.Random(seed), count)
        storm(world, 400, disks_to_lose=0)
        heal(world)
        assert len(world.clusters()) == 1, f"seed {seed}"
        # Without a lost disk everybody is a founder, and all founders know the same founding.
        assert all(node.founder for node in world.nodes.values())
        stores = [
            [one.store_uuid for one in node.disk.founding.members]
            for node in world.nodes.values()
            if node.disk.founding is not None
        ]
        assert stores == [sorted(n.description.store_uuid for n in world.nodes.values())] * count


@pytest.mark.parametrize("count", [3, 5])
def test_s26_a_disk_lost_while_founding_neither_splits_nor_blocks(count: int) -> None:
    for seed in range(SEEDS):
        world = World(random.Random(seed), count)
        storm(world, 400, disks_to_lose=1)
        heal(world)
        assert len(world.clusters()) == 1, f"seed {seed}"


def test_s26_a_node_with_wrong_seeds_joins_once_they_are_corrected() -> None:
    """It names two of the three that found a cluster, and itself; it may be everybody's founder."""
    for seed in range(SEEDS):
        world = World(random.Random(seed), 4)
        right, wrong = ["n0", "n1", "n2"], ["n1", "n2", "n3"]
        world.seeds = {name: wrong if name == "n3" else right for name in world.nodes}
        storm(world, 400, disks_to_lose=0)
        world.seeds["n3"] = right
        heal(world)
        assert len(world.clusters()) == 1, f"seed {seed}"
        assert [n.name for n in world.nodes.values() if n.founder] == right


def test_the_simulation_sees_a_split(monkeypatch: pytest.MonkeyPatch) -> None:
    """A promise that is given twice, and a founder who waits for nobody, must be found out."""

    def careless(me: pb.NodeDescription, disk: Disk, *_: object) -> founding.Step:
        if disk.founding is not None:
            return founding.BecomeMember()
        return founding.Found(pb.Founding(cluster_id=f"by {me.name}", members=[me]))

    monkeypatch.setattr(founding, "decide", careless)
    world = World(random.Random(1), 3)
    with pytest.raises(AssertionError, match="two clusters act"):
        storm(world, 400, disks_to_lose=0)


def standing(
    name: str, store: str, state: service_pb.FormationState.ValueType, cluster_id: str = ""
) -> service_pb.Standing:
    node = pb.NodeDescription(name=name, store_uuid=store, peer_address=f"{name}:7071")
    return service_pb.Standing(node=node, state=state, cluster_id=cluster_id)


EMPTY: Final = service_pb.FORMATION_STATE_EMPTY
MEMBER: Final = service_pb.FORMATION_STATE_MEMBER
REJOINING: Final = service_pb.FORMATION_STATE_REJOINING
ME: Final = pb.NodeDescription(name="me", store_uuid="m", peer_address="me:7071")


def view_of(*standings: service_pb.Standing, silent: tuple[str, ...] = ()) -> View:
    answers: dict[str, service_pb.Standing | None] = {
        one.node.peer_address: one for one in standings
    }
    return View(answers | dict.fromkeys(silent))


def test_s26_an_empty_disk_joins_what_exists_and_never_founds_beside_it() -> None:
    view = view_of(
        standing("me", "m", EMPTY), standing("a", "a", MEMBER, cluster_id="c"), silent=("b:7071",)
    )
    assert founding.decide(ME, Disk(), 3, view) == founding.Join(("a:7071",), "c")


@pytest.mark.parametrize(
    ("view", "why"),
    [
        (view_of(standing("me", "m", EMPTY), silent=("b:7071",)), "answer from b:7071"),
        (view_of(standing("me", "m", EMPTY)), "name 1 nodes, but --bootstrap-expect is 2"),
        (
            view_of(*(standing(one, one, EMPTY) for one in "abc")),
            "name 3 nodes, but --bootstrap-expect is 2",
        ),
        (view_of(standing("a", "a", EMPTY), standing("b", "b", EMPTY)), "not among its seeds"),
        (
            view_of(standing("me", "m", EMPTY), standing("z", "z", REJOINING, cluster_id="c")),
            "belongs to cluster c",
        ),
        (View({"me:7071": standing("me", "m", EMPTY)}, ("seeds.local",)), "seeds.local"),
    ],
)
def test_s26_nothing_is_founded_unless_exactly_the_expected_nodes_are_there(
    view: View, why: str
) -> None:
    step = founding.decide(ME, Disk(), 2, view)
    assert isinstance(step, founding.Wait)
    assert why in step.why


def test_two_empty_nodes_with_one_name_are_told_apart_and_one_stops() -> None:
    view = view_of(standing("me", "m", EMPTY))
    twin = standing("me", "a", EMPTY)
    both = View({**view.answers, "other:7071": twin})
    step = founding.decide(ME, Disk(), 2, both)
    assert isinstance(step, founding.Refuse)
    assert step.refusal == pb.NODE_REFUSAL_NAME_TAKEN
    assert "two living nodes with one name" in step.why
    # The other one stays: it waits until its twin is gone.
    assert isinstance(founding.decide(twin.node, Disk(), 2, both), founding.Wait)


def test_s11_a_node_that_lost_its_database_returns_to_its_cluster_only() -> None:
    lost = Disk(cluster_id="c")
    alone = view_of(standing("me", "m", REJOINING, cluster_id="c"))
    assert isinstance(founding.decide(ME, lost, 1, alone), founding.Wait)
    home = view_of(standing("a", "a", MEMBER, cluster_id="c"))
    assert founding.decide(ME, lost, 1, home) == founding.Join(("a:7071",), "c")
    foreign = view_of(standing("a", "a", MEMBER, cluster_id="other"))
    step = founding.decide(ME, lost, 1, foreign)
    assert isinstance(step, founding.Refuse)
    assert step.refusal == pb.NODE_REFUSAL_IDENTITY_MISMATCH
    assert "belongs to cluster c" in step.why


def test_s26_a_promise_is_given_once_and_the_same_one_again() -> None:
    founder = standing("a", "a", service_pb.FORMATION_STATE_PROMISED)
    view = view_of(founder, standing("me", "m", EMPTY))
    first = pb.Founding(cluster_id="c1", members=[founder.node, ME])
    second = pb.Founding(cluster_id="c2", members=[founder.node, ME])
    assert founding.consider(ME, Disk(), 2, view, first)
    assert founding.consider(ME, Disk(founding=first), 2, None, first)
    assert not founding.consider(ME, Disk(founding=first), 2, view, second)
    # Not to a founding that leaves out a node which this one sees, or that expects other numbers.
    more = view_of(founder, standing("me", "m", EMPTY), standing("z", "z", EMPTY))
    assert not founding.consider(ME, Disk(), 2, more, first)
    assert not founding.consider(ME, Disk(), 3, view, first)
    assert not founding.consider(ME, Disk(), 2, None, first)


FOUNDER: Final = pb.NodeDescription(name="a", store_uuid="a", peer_address="a:7071")
OTHER: Final = pb.NodeDescription(name="z", store_uuid="z", peer_address="z:7071")
BEGUN: Final = pb.Founding(cluster_id="c", members=[FOUNDER, ME, OTHER])
PROMISED: Final = service_pb.FORMATION_STATE_PROMISED


def promised(name: str, store: str, begun: pb.Founding = BEGUN) -> service_pb.Standing:
    found = standing(name, store, PROMISED)
    found.founding.CopyFrom(begun)
    return found


def test_s26_a_founder_whom_the_seeds_do_not_name_for_a_moment_is_waited_for() -> None:
    """A name stands for some of its addresses; the founder may have decided just now."""
    mine, other = promised("me", "m"), promised("z", "z")
    step = founding.decide(ME, Disk(founding=BEGUN), 3, view_of(mine, other))
    assert isinstance(step, founding.Wait)
    assert "the seeds name 2 of 3 nodes" in step.why
    # In its place there is another store: its disk was lost.
    gone = view_of(mine, other, standing("a", "new", EMPTY))
    assert isinstance(founding.decide(ME, Disk(founding=BEGUN), 3, gone), founding.Withdraw)


def test_s26_an_empty_founder_of_a_founded_cluster_is_a_founder_again() -> None:
    """Its vote is counted on by the member, which could never admit it without a majority."""
    member = standing("a", "a", MEMBER, cluster_id="c")
    member.founding.CopyFrom(BEGUN)
    step = founding.decide(ME, Disk(), 3, view_of(standing("me", "m", EMPTY), member))
    assert step == founding.Found(BEGUN)
    assert founding.decide(ME, Disk(founding=BEGUN), 3, view_of(member)) == founding.BecomeMember()
    # An empty disk under the same name is another store: it asks to be admitted.
    fresh = pb.NodeDescription(name="me", store_uuid="new", peer_address="me:7071")
    assert founding.decide(fresh, Disk(), 3, view_of(member)) == founding.Join(("a:7071",), "c")
    # Which of two clusters it belongs to it cannot know.
    two = view_of(member, standing("z", "z", MEMBER, cluster_id="d"))
    assert isinstance(founding.decide(ME, Disk(), 3, two), founding.Wait)


def test_s26_an_undecided_founder_joins_the_cluster_that_there_is() -> None:
    seen = view_of(standing("z", "z", MEMBER, cluster_id="d"), silent=("x:7071",))
    step = founding.decide(FOUNDER, Disk(founding=BEGUN), 3, seen)
    assert isinstance(step, founding.Withdraw)
    assert "there is a cluster already, d" in step.why


def test_s26_a_promise_ends_when_its_founder_belongs_to_another_cluster() -> None:
    for founder in (
        standing("a", "a", MEMBER, cluster_id="d"),
        standing("a", "a", EMPTY),
        promised("a", "a", pb.Founding(cluster_id="d", members=[FOUNDER, OTHER])),
    ):
        seen = view_of(founder, silent=("z:7071",))
        step = founding.decide(ME, Disk(founding=BEGUN), 3, seen)
        assert isinstance(step, founding.Withdraw), founder
    # Somebody else's cluster says nothing about what the founder has decided.
    seen = view_of(standing("z", "z", MEMBER, cluster_id="d"))
    step = founding.decide(ME, Disk(founding=BEGUN), 3, seen)
    assert isinstance(step, founding.Wait)
    assert "correct --seeds" in step.why


def test_founders_know_their_ids_before_anything_is_committed() -> None:
    members = [pb.NodeDescription(name=one, store_uuid=one) for one in "abc"]
    begun = pb.Founding(cluster_id="c", members=members)
    voters = [founding.founder_identity(begun, one)[1] for one in "abc"]
    assert tuple(voters) == founding.first_voters(begun)
