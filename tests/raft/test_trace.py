"""What the core tells its tracer: etcd's events, field by field, and all of them."""

from __future__ import annotations

import json
from typing import Any

from rakit.raft import ConfChange, ConfChangeSingle, ConfChangeType, ConfState, Role, TraceEvent
from rakit.raft.trace import EVENT_NAMES, line
from tests.raft.network import Network
from tests.raft.world import World
from tests.sim.trace_check.group import GroupCheck

Told = list[TraceEvent]


def traced(**options: Any) -> tuple[Network, Told]:
    told: Told = []
    tracer: Any = told.append
    return Network((1, 2, 3), tracer=tracer, **options), told


def of(told: Told, name: str, node: str = "1") -> TraceEvent:
    return next(one for one in told if (one["name"], one["nid"]) == (name, node))


def test_an_election_and_a_proposal_are_told_in_the_order_of_their_causes() -> None:
    network, told = traced(pre_vote=False)
    network.elect(1).propose(b"a")
    network.run()
    first = [str(one["name"]) for one in told if one["nid"] == "1" and one["name"] != "Ready"]
    assert first[:11] == [
        "InitState",
        "BecomeCandidate",
        "SendRequestVoteResponse",  # its own vote
        "SendRequestVoteRequest",
        "SendRequestVoteRequest",
        "ReceiveRequestVoteResponse",  # its own, from its disk
        "ReceiveRequestVoteResponse",
        "BecomeLeader",
        "Replicate",
        "SendAppendEntriesResponse",  # to itself
        "ReceiveRequestVoteResponse",
    ]


def test_an_event_has_the_fields_of_etcds() -> None:
    network, told = traced(pre_vote=False)
    network.elect(1)
    assert of(told, "SendRequestVoteRequest") == {
        "name": "SendRequestVoteRequest",
        "nid": "1",
        "state": {"term": 2, "vote": "1", "commit": 1},
        "role": "StateCandidate",
        "log": 1,
        "conf": [["1", "2", "3"], []],
        "msg": {
            "type": "MsgVote",
            "term": 2,
            "from": "1",
            "to": "2",
            "entries": 0,
            "logTerm": 1,
            "index": 1,
            "commit": 0,
            "vote": "0",
            "reject": False,
            "rejectHint": 0,
        },
    }
    row = json.loads(line(of(told, "BecomeLeader"), 7))
    assert row == {
        "tag": "trace",
        "group": 7,
        "event": {
            "name": "BecomeLeader",
            "nid": "1",
            "state": {"term": 2, "vote": "1", "commit": 1},
            "role": "StateLeader",
            "log": 1,
            "conf": [["1", "2", "3"], []],
        },
    }


def test_a_base_travels_as_an_append_request_whose_entries_are_its_index() -> None:
    network, told = traced()
    network.elect(1).propose_batch([b"a", b"b", b"c"])
    network.run()
    network.isolate(3)
    network[1].propose(b"d")
    network.run()
    network.offer_base(1, 6)
    network.heal()
    network.tick(4)
    sent = [one for one in told if "MsgSnap" in json.dumps(one)]
    assert [one["name"] for one in sent] == [
        "SendAppendEntriesRequest",
        "ReceiveAppendEntriesRequest",
    ]
    message = sent[0]["msg"]
    assert isinstance(message, dict)
    assert (message["entries"], message["index"], message["logTerm"]) == (6, 0, 0)


def test_pre_votes_are_told_as_nothing() -> None:
    network, told = traced(pre_vote=True)
    network.isolate(1)
    for _ in range(21):
        network[1].tick()
    assert network.replicas[1].role() is Role.PRE_CANDIDATE
    network.run()
    assert {one["name"] for one in told if one["nid"] == "1"} == {"InitState", "Ready"}
    assert all(one["role"] == "StateFollower" for one in told)


def test_a_change_tells_its_steps_and_the_configuration_that_it_leads_to() -> None:
    network, told = traced()
    network.elect(1).propose_conf_change(
        ConfChange((ConfChangeSingle(ConfChangeType.ADD_LEARNER, 4),))
    )
    network.run()
    change, applied = of(told, "ChangeConf"), of(told, "ApplyConfChange")
    assert applied["conf"] == [["1", "2", "3"], []]
    assert change["prop"] == {
        "cc": {"changes": [{"nid": "4", "action": "AddLearner"}]},
        "joint": False,
        "auto_leave": True,
    }
    assert applied["prop"] == {
        "cc": {"newconf": ["1", "2", "3"]},
        "members": {
            "voters": ["1", "2", "3"],
            "outgoing": [],
            "learners": ["4"],
            "learners_next": [],
            "auto_leave": False,
        },
    }


def told_by_a_world(seed: int, *, damage: bool) -> Told:
    told: Told = []
    tracer: Any = told.append
    options = {"number_boots": True} if damage else {}
    World(seed, damage=damage, tracer=tracer, **options).run(500)
    return told


def test_every_step_of_a_world_is_one_of_the_specification() -> None:
    names: set[str] = set()
    for seed in range(1, 9):
        judge = GroupCheck()
        for event in told_by_a_world(seed, damage=seed > 4):
            assert set(event) <= {"name", "nid", "state", "role", "log", "conf", "msg", "prop"}
            names.add(str(event["name"]))
            judge.take(event)
    assert names == set(EVENT_NAMES) - {"SendSnapshot", "ReceiveSnapshot"}


def test_a_configuration_without_a_tracer_tells_nobody() -> None:
    network = Network((1, 2, 3))
    network.elect(1)
    assert all(one.node._raft.tracer is None for one in network.replicas.values())
    assert network[1].status().conf_state == ConfState((1, 2, 3))
