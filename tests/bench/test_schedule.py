"""The order of measurements, and going on where a run was stopped."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.bench.bars import BARS
from tests.bench.results import Case, Result, append, latest, load, missing
from tests.bench.schedule import cases, turns
from tests.bench.systems import SYSTEMS, stand_in
from tests.bench.works import DEFAULT, WORKS, UnknownNameError, chosen, twin, work

PRODUCE = "produce-1k-p1-x1-batch"


def test_rounds_are_outside_and_every_other_one_goes_backwards() -> None:
    found = cases([PRODUCE], ["rakit", "kafka", "disk"], 3, 30, 10)
    order = [(case.round, case.system, case.setting) for case in found]
    ours, theirs = [("rakit", "1 MiB"), ("rakit", "3 MiB")], [("kafka", ""), ("disk", "")]
    assert order == [
        *((0, *each) for each in [*ours, *theirs]),
        *((1, *each) for each in [*reversed(theirs), *reversed(ours)]),
        *((2, *each) for each in [*ours, *theirs]),
    ]


def test_every_setting_of_a_client_is_measured() -> None:
    found = cases(["latency-1000"], ["kafka"], 1, 1, 1)
    assert [case.setting for case in found] == ["0", "1", "5"]
    found = cases(["produce-16k-p1-x1-batch", PRODUCE], ["rakit"], 1, 1, 1)
    assert [case.setting for case in found] == ["1 MiB", "3 MiB", "1 MiB", "3 MiB"]


def test_who_has_one_interface_only_is_measured_with_that_and_once() -> None:
    batch, record = "produce-100-p1-x1-batch", "produce-100-p1-x1-record"
    assert (twin(batch), twin(record), twin("kill")) == (record, batch, None)
    found = cases([batch, record], ["jetstream", "rakit"], 1, 1, 1)
    assert [(case.work, case.system) for case in found] == [
        (record, "jetstream"),
        (batch, "rakit"),
        (record, "rakit"),
    ]
    assert stand_in("kill", "rabbitmq-stream") is None


def test_gaps_are_measured_twenty_times_of_rakit_and_three_times_of_a_peer() -> None:
    found = cases(["kill"], ["rakit", "kafka"], 5, 1, 1)
    counts = {name: sum(case.system == name for case in found) for name in ("rakit", "kafka")}
    assert counts == {"rakit": 20, "kafka": 3}
    assert len(set(found)) == len(found)


def test_turns_are_spread_over_the_rounds() -> None:
    for total in (1, 3, 5, 20):
        found = [turn for number in range(5) for turn in turns(number, 5, total)]
        assert found == list(range(total))
    assert [len(turns(number, 5, 20)) for number in range(5)] == [4] * 5


def test_works_are_chosen_by_patterns_in_their_own_order() -> None:
    names = [each.name for each in WORKS]
    assert chosen(["kill", "latency-*"], names) == ["latency-1000", "latency-20000", "kill"]
    with pytest.raises(UnknownNameError, match="'produce-2k' fits none"):
        chosen(["produce-2k"], names)


def test_what_is_measured_by_default_exists_and_has_every_bar() -> None:
    assert {work(name).name for name in DEFAULT} == set(DEFAULT)
    assert {bar.work for bar in BARS} <= set(DEFAULT)
    assert all(any(stand_in(name, each) for each in SYSTEMS) for name in DEFAULT)


def test_a_run_that_was_stopped_goes_on_where_it_stopped(tmp_path: Path) -> None:
    path = tmp_path / "peers.jsonl"
    every = cases([PRODUCE], ["rakit", "kafka"], 2, 30, 10)
    assert missing(every, load(path)) == every
    append(path, Result(every[0], {"mb_per_s": 80.5}))
    append(path, Result(every[1], error="nobody listened"))
    found = load(path)
    assert found == [
        Result(every[0], {"mb_per_s": 80.5}),
        Result(every[1], error="nobody listened"),
    ]
    # What failed is tried again, and what was measured for another time does not count.
    assert missing(every, found) == every[1:]
    assert missing([replace(each, seconds=3) for each in every], found)[0].system == "rakit"
    append(path, Result(every[1], {"mb_per_s": 50.0}))
    assert missing(every, load(path)) == every[2:]
    assert [result.error for result in latest(load(path))] == ["", ""]


def test_a_line_that_was_cut_is_forgotten_and_nothing_is_glued_to_it(tmp_path: Path) -> None:
    path = tmp_path / "peers.jsonl"
    first = Case(PRODUCE, "rakit", "", 0, 30, 10)
    append(path, Result(first, {"mb_per_s": 1.0}))
    with path.open("a") as file:
        file.write('{"work": "produce-1k-')
    assert load(path) == [Result(first, {"mb_per_s": 1.0})]
    second = replace(first, round=1)
    append(path, Result(second, {"mb_per_s": 2.0}))
    assert [result.case for result in load(path)] == [first, second]
