"""Whether rakit is said to reach a bar exactly when it does; and what a person sees of it."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace

import pytest

from tests.bench import table
from tests.bench.bars import BARS, Against, Bar
from tests.bench.plot import series
from tests.bench.results import Case, Result
from tests.bench.systems import SYSTEMS
from tests.bench.verdicts import best, judge, rivals

BATCH, RECORD = "produce-1k-p1-x1-batch", "produce-1k-p1-x1-record"
BAR = Bar("produce", BATCH, "mb_per_s", 1.4, 2)


def results(
    system: str, work: str, values: Sequence[float], figure: str = "mb_per_s", setting: str = ""
) -> list[Result]:
    return [
        Result(Case(work, system, setting, number, 30, 10), {figure: value})
        for number, value in enumerate(values)
    ]


def test_a_bar_is_reached_when_the_lower_end_is_above_it_not_the_middle() -> None:
    peer = results("kafka", BATCH, [50, 40, 60, 50, 45])
    steady = judge([*results("rakit", BATCH, [80, 64, 97, 80, 72]), *peer], BAR)
    assert steady.other == "kafka"
    assert (steady.reaches(1.4), steady.reaches(2)) == (True, False)
    wavering = judge([*results("rakit", BATCH, [110, 50, 130, 70, 60]), *peer], BAR)
    assert wavering.ratio is not None
    assert wavering.ratio.middle > 1.5
    assert wavering.reaches(1.4) is False


def test_the_peer_that_is_hardest_to_beat_decides_and_references_do_not() -> None:
    ours = results("rakit", BATCH, [100, 102, 98])
    slow = results("jetstream", RECORD, [10, 11, 10])
    fast = results("rabbitmq-stream", BATCH, [60, 61, 60])
    limit = results("pipeline", BATCH, [120, 121, 119])
    found = judge([*ours, *slow, *fast, *limit], BAR)
    assert found.other == "rabbitmq-stream"
    assert set(found.missing) == {
        *("kafka", "kafka-fsync", "jetstream-fsync", "rabbitmq-quorum"),
    }
    share = Bar("share", BATCH, "mb_per_s", 0.75, 0.95, Against.PIPELINE)
    found = judge([*ours, *limit], share)
    assert (found.other, found.reaches(0.75), found.reaches(0.95)) == ("pipeline", True, False)


def test_a_bar_may_name_the_setting_that_its_rival_has() -> None:
    small = results("rakit", BATCH, [80, 82, 78], setting="1 MiB")
    large = results("rakit", BATCH, [120, 122, 118], setting="3 MiB")
    limit = results("pipeline", BATCH, [100, 102, 98])
    share = Bar("share", BATCH, "mb_per_s", 0.75, 0.95, Against.PIPELINE)
    assert judge([*small, *large, *limit], share).ours == 120
    found = judge([*small, *large, *limit], replace(share, setting="1 MiB"))
    assert (found.ours, found.reaches(0.75), found.reaches(0.95)) == (80, True, False)
    assert judge([*large, *limit], replace(share, setting="1 MiB")).ours is None


def test_of_times_less_is_better() -> None:
    bar = Bar("p50", "latency-1000", "p50_ms", 1, 2, Against.FSYNCING, more_is_better=False)
    ours = results("rakit", "latency-1000", [2.0, 2.1, 1.9], "p50_ms")
    peer = results("jetstream-fsync", "latency-1000", [5.0, 5.1, 4.9], "p50_ms")
    loose = results("jetstream", "latency-1000", [1.0, 1.0, 1.0], "p50_ms")
    found = judge([*ours, *peer, *loose], bar)
    assert found.other == "jetstream-fsync"
    assert found.ratio is not None
    assert found.ratio.middle == pytest.approx(2.5, rel=0.02)
    assert found.reaches(2) is True


def test_a_peer_counts_with_its_best_setting() -> None:
    settings = {"0": {0: 90.0, 1: 80.0}, "1": {0: 3.0, 1: 4.0}, "5": {0: 6.0, 1: 6.0}}
    assert best(settings, more_is_better=False)[0] == "1"
    assert best(settings, more_is_better=True)[0] == "0"


def test_a_limit_is_held_against_the_median() -> None:
    bar = Bar("killed", "kill", "gap_s", 1, 0.3, Against.NOBODY, more_is_better=False)
    found = judge(results("rakit", "kill", [0.2, 0.9, 5.0], "gap_s"), bar)
    assert (found.ours, found.reaches(1), found.reaches(0.3)) == (0.9, True, False)


def test_one_round_and_no_peer_leave_a_row_open() -> None:
    once = judge([*results("rakit", BATCH, [100]), *results("kafka", BATCH, [10])], BAR)
    assert once.reaches(1.4) is None
    assert judge(results("rakit", BATCH, [100, 100]), BAR).reaches(1.4) is None
    assert judge(results("kafka", BATCH, [100, 100]), BAR).ours is None


def test_a_measurement_that_failed_is_no_round() -> None:
    failed = Result(Case(BATCH, "rakit", "", 2, 30, 10), error="lost")
    found = judge(
        [*results("rakit", BATCH, [100, 100]), failed, *results("kafka", BATCH, [50, 50, 9])], BAR
    )
    assert found.ratio is not None
    assert found.ratio.middle == pytest.approx(2)


def test_an_idle_partition_that_costs_nothing_is_no_division_by_zero() -> None:
    bar = next(bar for bar in BARS if bar.against is Against.KAFKA)
    ours = results("rakit", "idle-1000", [0.0, 0.0], "cores_per_partition")
    peer = results("kafka", "idle-1000", [2e-4, 2e-4], "cores_per_partition")
    assert judge([*ours, *peer], bar).reaches(5) is True


def test_every_bar_has_somebody_to_be_held_against() -> None:
    for bar in BARS:
        assert (bar.against is Against.NOBODY) == (not rivals(bar)), bar.text
        assert not set(rivals(bar)) - SYSTEMS.keys()
    fsyncing = rivals(Bar("p50", "latency-1000", "p50_ms", 1, 2, Against.FSYNCING))
    assert set(fsyncing) == {"kafka-fsync", "jetstream-fsync", "rabbitmq-quorum"}


def measured() -> list[Result]:
    return [
        *results("rakit", BATCH, [80, 100]),
        *results("kafka", BATCH, [40, 50]),
        Result(Case(RECORD, "jetstream-fsync", "", 0, 30, 10), error="nobody listened"),
    ]


def test_the_table_shows_spread_ratio_failures_and_bars(capsys: pytest.CaptureFixture[str]) -> None:
    table.show({"cpu": "one"}, measured())
    out = capsys.readouterr().out
    assert "cpu       one\neach      30 s after 10 s of warm-up\n" in out
    assert f"\n{BATCH}\nSYSTEM  ROUNDS  MB/s            RAKIT'S RATIO\n" in out
    assert "rakit   2       90 (80 to 100)  -\n" in out
    assert "kafka   2       45 (40 to 50)   2 [2, 2]\n" in out
    assert "failed: jetstream-fsync : nobody listened\n" in out
    (row,) = [line for line in out.splitlines() if line.startswith("produce 1 KiB, one")]
    assert "1.40 x yes" in row
    assert "2 x NO" in row


def test_who_has_one_interface_only_stands_in_the_same_table_with_its_name(
    capsys: pytest.CaptureFixture[str],
) -> None:
    table.show({}, [*measured(), *results("jetstream", RECORD, [10, 10])])
    out = capsys.readouterr().out
    assert re.search(r"^jetstream +record +2 +10 \(10 to 10\) ", out, re.MULTILINE)
    assert f"\n{RECORD}\n" not in out
    table.show({}, [*measured(), *results("rakit", RECORD, [20, 20])])
    assert f"\n{RECORD}\n" in capsys.readouterr().out


def test_programs_get_every_round_and_every_verdict() -> None:
    tree = json.loads(json.dumps(table.tree({}, measured()), allow_nan=False))
    assert len(tree["results"]) == 5
    (verdict,) = [each for each in tree["verdicts"] if each["must"] == 1.4]
    assert (verdict["against"], verdict["must_is_met"], verdict["goal_is_met"]) == (
        *("kafka", True, False),
    )


def test_a_picture_has_a_bar_for_each_system_at_its_best_setting() -> None:
    slow = results("kafka", "latency-1000", [9.0], "p50_ms", "0")
    quick = results("kafka", "latency-1000", [3.0], "p50_ms", "5")
    ours = results("rakit", "latency-1000", [2.0], "p50_ms")
    assert series([*slow, *quick, *ours], "latency-1000") == [
        ("rakit", {0: 2.0}),
        ("kafka 5", {0: 3.0}),
    ]
