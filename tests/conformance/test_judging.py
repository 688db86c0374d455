"""The judge sees what is wrong: each check is given a run that it must refuse."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.harness import Cluster
from tests.conformance import judging, witness
from tests.conformance.judging import Seen, complaints, mismatches
from tests.conformance.programs import Command, Run, run
from tests.conformance.runner import Stage, verdict
from tests.conformance.scenarios import Act, Scenario, fill, load
from tests.conformance.witness import Stored

NOTHING = Seen([], [[]], [], {}, {})


def stored(*values: str) -> list[Stored]:
    return [Stored(offset, 1, None, value, ()) for offset, value in enumerate(values)]


def scenario(**fields: Any) -> Scenario:
    return Scenario(name="s", says="", steps=({"op": "x"},), **fields)


@pytest.mark.parametrize(
    ("wanted", "got"),
    [
        (1, 2),
        (1, "1"),
        (1, True),
        (True, 1),
        ({"a": 1}, {}),
        ({"a": 1}, {"a": 2}),
        ({"a": 1}, [1]),
        ({"a": {"b": "x"}}, {"a": {"b": "y"}}),
        (["a"], []),
        (["a"], ["a", "b"]),
        (["a", "b"], ["b", "a"]),
        ({"$absent": ["a"]}, {"a": None}),
        ({"$contains": ["a"]}, ["b"]),
        ({"$contains": ["a"]}, None),
        ({"$at_least": 2}, 1),
        ({"$at_least": 2}, "3"),
        ({"error": {"reason": "NOT_LEADER"}}, {"base_offset": 0}),
    ],
)
def test_what_differs_is_told(wanted: Any, got: Any) -> None:
    assert mismatches(wanted, got, "it")


@pytest.mark.parametrize(
    ("wanted", "got"),
    [
        ({"a": 1}, {"a": 1, "b": 2}),
        ({"$absent": ["a"], "b": 1}, {"b": 1}),
        ({"$contains": ["a"]}, ["b", "a"]),
        ({"$at_least": 2}, 2),
        ([{"a": 1}], [{"a": 1, "b": 2}]),
    ],
)
def test_what_is_more_than_was_asked_for_is_no_mismatch(wanted: Any, got: Any) -> None:
    assert not mismatches(wanted, got, "it")


def test_a_step_without_an_answer_is_told() -> None:
    assert complaints(scenario(expect={"0": {"a": 1}}), NOTHING, {})


def test_what_is_stored_is_compared_with_what_was_read_and_not_with_what_was_said() -> None:
    one = scenario(stored={"0": ["a"]})
    said = [{"base_offset": 0}]
    assert not complaints(one, replace(NOTHING, results=said, stored={0: stored("a")}), {})
    for wrong in (stored(), stored("b"), stored("a", "a")):
        assert complaints(one, replace(NOTHING, results=said, stored={0: wrong}), {})


ACKED: list[dict[str, Any]] = [{"acked": [{"value": "a", "partition": 0, "offset": 0}]}]


@pytest.mark.parametrize(
    ("results", "found"),
    [(ACKED, ""), (ACKED, "b"), (ACKED, "aa"), ([{"acked": list[str]()}], "a"), ([], "a")],
    ids=["lost", "another", "twice", "nothing acknowledged", "no answer"],
)
def test_an_acknowledged_record_that_is_lost_or_doubled_is_told(
    results: Sequence[Mapping[str, Any]], found: str
) -> None:
    assert judging.acknowledged_once(replace(NOTHING, results=results, stored={0: stored(*found)}))


def test_records_that_were_stored_without_an_acknowledgement_are_no_complaint() -> None:
    seen = replace(NOTHING, results=ACKED, stored={0: stored("a", "b")})
    assert not judging.acknowledged_once(seen)


def test_a_producer_that_stopped_with_its_node_is_told() -> None:
    assert judging.went_on_elsewhere(NOTHING)
    killed = replace(NOTHING, progress=[["a", "b"]], killed={"n": 2})
    assert judging.went_on_elsewhere(killed)
    assert not judging.went_on_elsewhere(replace(killed, progress=[["a", "b", "c"]]))


def test_a_record_that_nobody_consumed_is_told() -> None:
    seen = Seen([], [["a"], ["b"]], ["a", "b"], {}, {})
    assert not judging.consumed_by_the_group(seen)
    assert judging.consumed_by_the_group(replace(seen, progress=[["a"], []]))
    assert judging.consumed_by_the_group(replace(seen, progress=[["a", "b"], []]))
    assert judging.consumed_by_the_group(replace(seen, appended=[]))


def message(version: int, *leaders: str, **fields: Any) -> dict[str, Any]:
    plain: dict[str, Any] = {"is_snapshot": False, "has_more": False, "deleted": list[str]()}
    return {**plain, "version": version, "leaders": list(leaders), **fields}


NODES = message(1, is_snapshot=True, has_more=True)
SNAPSHOT = message(2, "t 0 a", "t 1 b", is_snapshot=True)
MOVED, DELETED = message(3, "t 0 b"), message(4, deleted=["t"])
WATCHED = replace(NOTHING, known=["t 0", "t 1"], changed=["t 0 b", "t deleted"])


@pytest.mark.parametrize(
    "messages",
    [
        [],
        [NODES, MOVED, DELETED],
        [NODES, {**SNAPSHOT, "leaders": ["t 0 a"]}, MOVED, DELETED],
        [NODES, {**SNAPSHOT, "leaders": ["t 0 a", "t 10 b"]}, MOVED, DELETED],
        [NODES, SNAPSHOT, DELETED],
        [NODES, SNAPSHOT, {**MOVED, "leaders": ["t 0 a"]}, DELETED],
        [NODES, {**SNAPSHOT, "leaders": ["t 0 b", "t 1 b"]}, DELETED],
        [NODES, SNAPSHOT, MOVED],
        [NODES, SNAPSHOT, {**DELETED, "version": 3}, {**MOVED, "version": 4}],
        [NODES, {**SNAPSHOT, "version": 3}, MOVED, DELETED],
        [NODES, SNAPSHOT, {**MOVED, "version": 1}, DELETED],
        [SNAPSHOT, MOVED, DELETED],
        [{**NODES, "has_more": False}, SNAPSHOT, MOVED, DELETED],
        [NODES, SNAPSHOT, {**MOVED, "is_snapshot": True}, DELETED],
        [NODES, SNAPSHOT, MOVED, {**DELETED, "has_more": True}],
    ],
    ids=[
        "nothing",
        "half a snapshot",
        "a partition is missing",
        "another partition",
        "the move is missing",
        "moved elsewhere",
        "the move is in the snapshot only",
        "the deletion is missing",
        "the wrong order",
        "a version twice",
        "a version begins anew",
        "the first version is missing",
        "a snapshot that ends too early",
        "a change that says snapshot",
        "more is promised",
    ],
)
def test_a_watch_that_tells_too_little_or_out_of_turn_is_told(
    messages: list[dict[str, Any]],
) -> None:
    good = [NODES, SNAPSHOT, MOVED, DELETED]
    assert not judging.watched(replace(WATCHED, results=[{"messages": good}]))
    assert judging.watched(replace(WATCHED, results=[{"messages": messages}]))


def test_a_watch_that_does_not_begin_anew_elsewhere_is_told() -> None:
    first = [message(1, "t 0 a", is_snapshot=True)]
    second = [message(1, "t 0 a", is_snapshot=True), message(2, "t 0 b"), message(3, deleted=["t"])]
    dead = replace(NOTHING, known=["t 0"], changed=["t 0", "t deleted"], killed={"a": 1})
    assert not judging.watched(replace(dead, results=[{"messages": first + second}]))
    without_a_leader = [second[0], {**second[1], "leaders": ["t 0 a"]}, second[2]]
    for wrong in (first, second, first + without_a_leader, first + second[1:]):
        assert judging.watched(replace(dead, results=[{"messages": wrong}]))


def test_an_act_is_due_when_the_program_has_said_what_it_waits_for(tmp_path: Path) -> None:
    stage = Stage(Cluster(tmp_path / "c", 1), scenario(checks=("watched",)), "t", {"topic": "t"})
    wanted = Act("delete", heard="$topic 0")
    stage.heard_from, stage.killed = 1, {"dead": 1}
    for said in ([], ["t 0 b"], ["", "t 1 b"], ["", "t 00 b"], ["", "t.2 0 b"], ["", "t 0 dead"]):
        assert not stage.is_due(wanted, Run(progress=said)), said
    assert stage.is_due(wanted, Run(progress=["", "t 1 b", "t 0 b", "t 1 c"]))
    assert not stage.is_due(Act("kill", after=2), Run(progress=["a"]))
    assert stage.is_due(Act("kill", after=2), Run(progress=["a", "b"]))


async def test_an_act_that_fails_fails_its_scenario_and_ends_all_of_its_programs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> int:
        raise AssertionError("no node takes it")

    monkeypatch.setattr(witness, "append", fail)
    # Each hangs; what the runner waits for is said once both are there.
    hangs = """
import os, sys, threading, time
print(os.getpid(), file=open("pids", "a"))
while len(open("pids").readlines()) < 2:
    time.sleep(0.01)
print("progress", file=sys.stderr, end=" \\n", flush=True)
threading.Event().wait()
"""
    one = scenario(checks=("watched",), act=(Act("append", after=1),), partitions=0, members=2)
    command = Command([sys.executable, "-c", hangs], tmp_path, {})
    found = await verdict(Cluster(tmp_path / "c", 1), one, "python", command)
    assert (found.status, found.complaints) == (
        "failed",
        ["the runner itself could not go on: no node takes it"],
    )
    pids = (tmp_path / "pids").read_text().split()
    assert len(pids) == 2
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid), 0)


@pytest.mark.parametrize("when", [{}, {"after": 1, "heard": "a"}])
def test_an_act_is_due_at_one_time(when: dict[str, Any]) -> None:
    with pytest.raises(AssertionError, match="when is kill due"):
        scenario(checks=("watched",), act=(Act("kill", **when),))


def test_every_check_of_the_list_exists_and_every_check_is_used() -> None:
    used = {check for each in load() for check in each.checks}
    assert used == set(judging.CHECKS)


def test_a_scenario_that_expects_nothing_is_refused() -> None:
    with pytest.raises(AssertionError, match="cannot fail"):
        scenario()


def test_a_word_that_nobody_fills_in_is_a_mistake() -> None:
    assert fill(["$topic", "$topic.b"], {"topic": "t"}) == ["t", "t.b"]
    assert fill("$result.0.a", {"results": [{"a": 7}]}) == 7
    with pytest.raises(KeyError):
        fill("$nobody", {"topic": "t"})


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("print('{\"results\": []}')", ""),
        ("raise SystemExit(3)", "exit code 3"),
        ("print('hello')", "one JSON line"),
        ("print('{}')", "one JSON line"),
        ("print('{\"results\": []}'); print()", "one JSON line"),
        ("input(); open('/dev/stdin').read(); __import__('threading').Event().wait()", "not done"),
    ],
    ids=["as it should be", "fails", "no JSON", "no results", "two lines", "hangs"],
)
async def test_a_program_that_does_not_answer_as_it_should_is_told(
    tmp_path: Path, program: str, said: str
) -> None:
    async def ignore(_run: Run) -> None:
        return

    command = Command([sys.executable, "-c", program], tmp_path, {})
    done = await run(command, {"steps": []}, 3, ignore)
    assert bool(done.complaints) == bool(said)
    assert said in "".join(done.complaints)
    assert done.process is not None
    assert done.process.returncode is not None
