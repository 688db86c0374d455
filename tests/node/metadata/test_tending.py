"""Which members a leader takes for caught up."""

from __future__ import annotations

from rakit.node.metadata.tending import caught_up
from rakit.raft import MessageType, ProgressState
from tests.raft.network import Network
from tests.raft.script import parse_change

PAYLOAD = b"." * 100


def with_a_learner(**options: int) -> Network:
    """1 leads 2 and 3; 4 has the base up to entry 8, and what follows is on its way."""
    network = Network((1, 2, 3), learners=(), born=None, **options)
    network.elect(1)
    network[1].propose_batch([PAYLOAD] * 9)
    network.run()
    network.offer_base(1, 8)
    network.add(4, None)
    network[1].propose_conf_change(parse_change(["l4"]))
    network.filter = lambda m: not (m.to == 4 and m.entries)
    network.run()
    return network


def test_a_learner_that_does_not_know_of_its_addition_is_not_ready() -> None:
    """It would not vote: with one more failure the group would have no leader for good."""
    network = with_a_learner()
    learner = next(peer for peer in network[1].status().peers if peer.id == 4)
    assert (learner.match, learner.state) == (8, ProgressState.REPLICATE)
    assert caught_up(network[1].status()) == {1, 2, 3}
    network.heal()
    network.tick(4)
    assert caught_up(network[1].status()) == {1, 2, 3, 4}


def test_a_learner_is_ready_when_all_that_is_committed_is_on_its_way() -> None:
    """Entries do not tell how much is missing: a hundred of them may take long."""
    network = with_a_learner(max_size_per_msg_bytes=100, max_inflight_messages=4)
    network.heal()
    network.tick(4)
    network.filter = lambda m: m.from_ != 4 or m.type is MessageType.HEARTBEAT_RESP
    for count in range(6):
        # Its window holds four; the others commit what it has not been sent.
        assert (4 in caught_up(network[1].status())) == (count <= 4)
        network[1].propose(PAYLOAD)
        network.run()
    network.heal()
    network.tick(4)
    assert 4 in caught_up(network[1].status())
