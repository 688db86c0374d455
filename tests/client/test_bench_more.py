"""Reading, groups, unary calls, restarts and growth: what is pure of them."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from rakit.client.bench.figures import lower_end
from rakit.client.bench.group import Reads
from rakit.client.bench.growth import Axis, GrowthSettings, Point, in_turn, points_of
from rakit.client.bench.members import Members, is_even
from rakit.client.bench.produce import Measured, ProduceSettings
from rakit.client.bench.read import Passes, ReadSettings
from rakit.client.bench.unary import Caller, Turn, UnarySettings, figures_of
from rakit.client.bench.usage import Spent
from rakit.client.cli.complaints import CommandError


def test_a_partition_counts_as_read_again_with_something_sent_after_the_moment() -> None:
    reads = Reads(2)
    reads.expect(10.0)
    reads.took(0, sent_s=9.9, now_s=10.1)
    reads.took(1, sent_s=10.0, now_s=10.1)
    assert not reads.are_over
    reads.took(0, sent_s=10.1, now_s=10.2)
    assert reads.are_over
    reads.expect(11.0)
    assert not reads.are_over


def test_a_pause_is_the_longest_wait_of_any_partition_and_begins_before_the_event() -> None:
    reads = Reads(2)
    reads.took(0, sent_s=0, now_s=1.0)
    reads.took(1, sent_s=0, now_s=1.5)
    reads.took(1, sent_s=0, now_s=9.0)
    reads.watch_pauses(9.5)
    assert reads.pause_s == 0
    reads.took(1, sent_s=0, now_s=9.6)
    assert reads.pause_s == pytest.approx(0.6)
    reads.took(0, sent_s=0, now_s=10.0)
    assert reads.pause_s == pytest.approx(9.0)


def test_shares_are_even_when_everything_is_owned_and_nobody_has_two_more() -> None:
    assert is_even([2, 2, 2], 6)
    assert is_even([2, 2, 1, 1], 6)
    assert not is_even([3, 2, 1], 6)
    assert not is_even([2, 2, 1], 6)
    assert is_even([1, 0], 1)


async def test_waiting_for_members_ends_with_what_is_so_or_with_a_members_error() -> None:
    members, is_so = Members("127.0.0.1:1", "g", "t"), False
    waiting = asyncio.create_task(members.until(lambda: is_so, "something"))
    await asyncio.sleep(0)
    members.note()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert not waiting.done()
    is_so = True
    members.note()
    await waiting


async def test_waiting_for_members_is_bounded_and_says_for_what(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("rakit.client.bench.members.WAIT_S_MAX", 0.01)
    members = Members("127.0.0.1:1", "g", "t")
    with pytest.raises(CommandError, match="waiting for even shares: not within"):
        await members.until(lambda: False, "waiting for even shares")


def test_the_lower_end_of_an_interval_is_that_of_students_t() -> None:
    # Mean 50, standard deviation 2.5819..., t of three degrees of freedom 3.182.
    assert lower_end([47, 49, 51, 53]) == pytest.approx(50 - 3.182 * 2.58199 / 2, abs=1e-3)
    assert lower_end([40]) == 40
    assert lower_end([40.0] * 30) == pytest.approx(40)


def test_a_share_is_that_of_its_round() -> None:
    # The machine halves its speed in the second round: for both.
    rounds = [
        (Turn([0.1] * count, Spent(1, 0.5, [0.25, 0.25])), Turn([0.1] * of, Spent(1, 0.5)))
        for count, of in ((50, 100), (25, 50), (48, 100))
    ]
    found = {figure.key: figure for figure in figures_of(rounds)}
    assert found["share_median"].value == pytest.approx(50)
    assert 40 < found["share_low"].value < 49
    assert found["calls_per_s"].value == 48
    assert found["echo_per_s"].ratio == pytest.approx(0.48)
    assert found["nodes_cpu_us"].value == pytest.approx(1.5e6 / 123)


def test_a_caller_numbers_its_calls() -> None:
    caller = Caller("t", 2, UnarySettings(record_bytes=5))
    assert caller.next_request().producer.sequence == 1
    request = caller.next_request()
    assert (request.producer.sequence, request.partition) == (2, 2)
    assert [record.value for record in request.rows.records] == [bytes(5)]


def test_passes_are_told_as_rates_and_cpu_for_what_was_read() -> None:
    passes = Passes(2000, Spent(2, 1, [3, 1]))
    found = {figure.key: figure.value for figure in passes.figures("batch", "batches", 1000)}
    assert found["batch_mb_per_s"] == pytest.approx(1)
    assert found["batch_records_per_s"] == pytest.approx(1000)
    assert found["batch_nodes_cpu_s_per_gb"] == pytest.approx(2000)
    assert found["batch_client_cpu_s_per_gb"] == pytest.approx(500)
    assert ReadSettings(1000, 3).records == 3000


def test_each_axis_changes_one_thing() -> None:
    settings = GrowthSettings(seconds=7, warm_up_seconds=1)
    base = ProduceSettings(seconds=7, warm_up_seconds=1)
    points = points_of(Axis.PRODUCERS, settings)
    assert [point.produce for point in points] == [
        replace(base, producers=count) for count in (1, 4, 16)
    ]
    assert [point.nodes for point in points_of(Axis.NODES, settings)] == [3, 5]
    sizes = [point.produce.record_bytes for point in points_of(Axis.RECORD_BYTES, settings)]
    assert sizes == [100, 1 << 10, 16 << 10, 1 << 20]
    assert [point.produce.partitions for point in points_of(Axis.PARTITIONS, settings)] == [
        *(1, 6, 48)
    ]


def test_every_other_round_goes_backwards() -> None:
    first, second = points_of(Axis.NODES, GrowthSettings())
    assert in_turn([first, second], 3) == [first, second, second, first, first, second]


def test_a_point_is_a_column_and_one_without_an_acknowledgement_is_an_error() -> None:
    point = Point(Axis.NODES, 5, ProduceSettings(1000), nodes=5)
    report = point.report(Measured(2_000, [0.1], Spent(2, 1)))
    assert (report.name, report.column, report.settings["nodes"]) == ("growth-nodes", "5", 5)
    assert report.figures[0].value == pytest.approx(1)
    with pytest.raises(CommandError, match="measure for longer"):
        point.report(Measured(0, [], Spent(2, 1)))
