"""The parts of the bench that need no cluster."""

from __future__ import annotations

import asyncio
import json
import math
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from rakit.client.bench.background import running, together
from rakit.client.bench.busy import Speed, figures_of
from rakit.client.bench.disk import CHUNK_BYTES, append_durably, measure_disk
from rakit.client.bench.echo import measure_rate, measure_round_trips
from rakit.client.bench.failover import GapWatch, Kill
from rakit.client.bench.machine import describe, mounted_at
from rakit.client.bench.meter import Meter
from rakit.client.bench.pipeline import (
    IN_FLIGHT_MAX,
    TOGETHER_BYTES_MAX,
    Outbox,
    measure_pipeline,
    pipeline_client,
    pipeline_processes,
)
from rakit.client.bench.produce import ProduceSettings
from rakit.client.bench.report import Figure, Report, at_least, at_most, median_of, show
from rakit.client.bench.usage import Spent
from rakit.client.cli.output import Format
from rakit.client.config import BATCH_COUNT_LIMIT
from rakit.client.demo.verify import NotDurableError
from rakit.client.errors import make_error
from rakit.client.model import Receipt
from rakit.client.producing.batch import Batch, Delivery

RECEIPT = Receipt("t", 0, 0, 3, 0, 1, 2, 3, fsynced=True, duplicate=False)


async def test_a_gap_ends_with_a_record_that_was_sent_after_the_kill() -> None:
    watch = GapWatch()
    watch.begin({1, 2}, 10.0)
    watch.acknowledged(1, sent_s=9.9, now_s=10.1)
    watch.acknowledged(0, sent_s=10.1, now_s=10.2)
    watch.acknowledged(1, sent_s=10.1, now_s=10.4)
    watch.acknowledged(1, sent_s=10.2, now_s=10.5)
    ending = asyncio.create_task(watch.end())
    await asyncio.sleep(0)
    assert not ending.done()
    watch.acknowledged(2, sent_s=10.0, now_s=11.0)
    kill = Kill("n", await ending)
    assert (kill.first_s, kill.last_s) == pytest.approx((0.4, 1.0))


async def test_each_kill_has_gaps_of_its_own() -> None:
    watch = GapWatch()
    for began_s in (1.0, 5.0):
        watch.begin({0}, began_s)
        watch.acknowledged(0, sent_s=began_s, now_s=began_s + 0.5)
        assert await watch.end() == {0: 0.5}


def delivered(meter: Meter, records: int = 3) -> Batch:
    batch = Batch(0.0, None)
    meter.watch(Delivery.of(batch, -1), records, 0.0)
    return batch


async def test_a_figure_without_fsync_is_an_error() -> None:
    meter = Meter()
    delivered(meter).finish(RECEIPT._replace(fsynced=False))
    with pytest.raises(NotDurableError, match="t/0 acknowledged without fsync"):
        await meter.until(1)
    assert not meter.records


async def test_a_meter_counts_what_is_acknowledged_and_times_only_while_it_records() -> None:
    meter = Meter()
    early, late = delivered(meter, 3), delivered(meter, 4)
    assert meter.records == 0
    early.finish(RECEIPT)
    await meter.until(1)
    assert (meter.records, len(meter.latencies_s)) == (3, 0)
    meter.is_recording = True
    late.finish(RECEIPT)
    await meter.until(2)
    assert (meter.records, len(meter.latencies_s)) == (7, 1)
    meter.check()


async def test_a_failed_delivery_ends_a_run_and_counts_for_nothing() -> None:
    meter = Meter()
    meter.is_recording = True
    batch = delivered(meter)
    batch.finish(make_error("NO_SPACE", "the disk is full"))
    with pytest.raises(Exception, match="the disk is full"):
        await meter.until(1)
    with pytest.raises(Exception, match="the disk is full"):
        meter.check()
    assert (meter.records, meter.latencies_s) == (0, [])


def test_what_was_spent_is_told_for_each_gb_and_mb_of_values_and_summed_over_the_nodes() -> None:
    spent = Spent(10, 4, [3, 2, 1], [90_000_000, 80_000_000, 70_000_000], 200_000_000, [9, 8, 7])
    found = {figure.key: figure.value for figure in spent.figures(8)}
    assert found["nodes_cpu_s"] == 6
    assert found["nodes_cpu_s_per_gb"] == pytest.approx(6e9 / 8)
    assert found["client_cpu_s_per_gb"] == pytest.approx(4e9 / 8)
    assert found["nodes_memory_peak_mb"] == 200
    assert found["written_mb_per_mb"] == 3
    nodes = {figure.key: figure.value for figure in spent.node_figures()}
    assert nodes["node_2_memory_peak_mb"] == 80
    assert nodes["node_3_written_mb"] == pytest.approx(7e-6)


def test_of_nodes_of_others_only_the_client_is_told() -> None:
    spent = Spent(10, 4)
    assert [figure.key for figure in spent.figures(8)] == ["client_cpu_s", "client_cpu_s_per_gb"]
    assert spent.node_figures() == []


async def test_reaching_a_number_of_records_ends_with_them_or_with_the_first_error() -> None:
    meter = Meter()
    first, second, third = delivered(meter, 3), delivered(meter, 4), delivered(meter, 5)
    reaching = asyncio.create_task(meter.reach(7))
    first.finish(RECEIPT)
    await meter.until(1)
    await asyncio.sleep(0)
    assert not reaching.done()
    second.finish(RECEIPT)
    await reaching
    reaching = asyncio.create_task(meter.reach(12))
    third.finish(make_error("NO_SPACE", "the disk is full"))
    with pytest.raises(Exception, match="the disk is full"):
        await reaching


async def test_of_loads_together_the_first_that_fails_ends_all() -> None:
    ended: list[str] = []

    async def fail() -> None:
        await asyncio.sleep(0)
        raise OSError("one load broke")

    async def send() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("the other one")

    with pytest.raises(OSError, match="one load broke"):
        await together([send(), fail()])
    assert ended == ["the other one"]


async def test_a_load_that_fails_ends_what_is_measured_beside_it() -> None:
    ended: list[str] = []

    async def fail() -> None:
        await asyncio.sleep(0)
        raise OSError("the load broke")

    async def measure() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("measure")

    async with running(fail()) as load:
        with pytest.raises(OSError, match="the load broke"):
            await load.during(measure())
    assert ended == ["measure"]


async def test_a_load_ends_with_its_block_and_a_result_comes_through() -> None:
    ended: list[str] = []

    async def send() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("load")

    async def measure() -> int:
        await asyncio.sleep(0)
        return 7

    async with running(send()) as load:
        assert await load.during(measure()) == 7
        assert not ended
    assert ended == ["load"]


def test_batches_hold_what_fits_and_at_least_one_record() -> None:
    assert ProduceSettings(1024, 1 << 20).batch_records == (1 << 20) // 1032
    assert ProduceSettings(5000, 1000).batch_records == 1
    assert ProduceSettings(1, 15 << 20).batch_records == BATCH_COUNT_LIMIT


def test_only_large_batches_need_a_topic_of_their_own_kind() -> None:
    assert ProduceSettings().topic_config.batch_bytes_max is None
    assert ProduceSettings(batch_bytes=4 << 20).topic_config.batch_bytes_max == (4 << 20) + 1024


def test_producers_share_the_window_and_each_has_room_for_two_batches() -> None:
    def window(producers: int, batch_bytes: int = 1 << 20) -> int:
        settings = ProduceSettings(batch_bytes=batch_bytes, producers=producers)
        return settings.producer_config.unacknowledged_bytes_max

    assert (window(1), window(4), window(16)) == (12 << 20, 3 << 20, 2 << 20)
    assert (window(1, 1000), window(4, 1000)) == (4 << 20, 1 << 20)


def test_goals_are_floors_or_ceilings() -> None:
    assert at_least(60).is_met(60)
    assert not at_least(60).is_met(59.9)
    assert at_most(3).is_met(3)
    assert not at_most(3).is_met(3.1)


def a_report() -> Report:
    figures = (
        Figure("mb_per_s", "acknowledged", 1234.5, "MB/s"),
        Figure("ack_p99", "acknowledgement, p99", 7.123, "ms"),
        Figure("disk", "reference: disk", 2469, "MB/s", ratio=0.5),
    )
    return Report("produce", {"seconds": 30}, figures)


def test_a_table_aligns_values_and_shows_goals_and_ratios(
    capsys: pytest.CaptureFixture[str],
) -> None:
    report = a_report().aiming({"mb_per_s": at_least(60), "ack_p99": at_most(5)})
    show({"cpu": "one"}, [report], Format.TABLE)
    assert capsys.readouterr().out == (
        "cpu       one\n"
        "\n"
        "produce: seconds 30\n"
        "FIGURE                VALUE  UNIT  RATIO  GOAL\n"
        "acknowledged          1,234  MB/s         >= 60  met\n"
        "acknowledgement, p99   7.12  ms           <= 5   MISSED\n"
        "reference: disk       2,469  MB/s  0.50\n"
    )


def test_columns_that_nothing_fills_are_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    show({}, [Report("start", {"starts": 5}, (Figure("a", "ready", 0.5, "s"),))], Format.TABLE)
    assert capsys.readouterr().out == ("\nstart: starts 5\nFIGURE  VALUE  UNIT\nready    0.50  s\n")


def growth() -> list[Report]:
    return [
        Report(
            "groups",
            {"groups": count, "rounds": 2},
            (Figure("cpu", "CPU", cpu, "%"), Figure("memory", "memory of one", memory, "kB")),
            column=f"{count:,}",
        ).aiming({"cpu": at_most(10)})
        for count, cpu, memory in ((10, 1.5, 14.0), (10_000, 12.0, 9.25))
    ]


def test_reports_with_a_column_each_are_one_table(capsys: pytest.CaptureFixture[str]) -> None:
    show({}, [a_report(), *growth()], Format.TABLE)
    assert capsys.readouterr().out.endswith(
        "\n"
        "groups: rounds 2\n"
        "FIGURE           10  10,000  UNIT  GOAL\n"
        "CPU            1.50      12  %     <= 10  MISSED\n"
        "memory of one    14    9.25  kB\n"
    )


def test_programs_get_a_report_for_each_column(capsys: pytest.CaptureFixture[str]) -> None:
    show({}, growth(), Format.JSON)
    reports = json.loads(capsys.readouterr().out)["reports"]
    assert [each["settings"]["groups"] for each in reports] == [10, 10_000]
    assert [each["figures"][0]["is_met"] for each in reports] == [True, False]


def test_who_is_slower_is_said_by_the_ratios_within_rounds_whatever_the_machine_did() -> None:
    # The machine halves its speed in the second round: for both.
    rounds = [
        (Speed(1.0, 1000, 4.0, 3.0), Speed(1.1, 1000, 4.0, 3.0)),
        (Speed(2.0, 500, 8.0, 6.0), Speed(2.2, 400, 8.4, 6.0)),
        (Speed(1.0, 1000, 4.0, 3.0), Speed(1.1, 800, 4.4, 3.0)),
    ]
    found = {figure.key: figure.value for figure in figures_of(rounds)}
    assert found["slower_single"] == pytest.approx(10)
    assert found["slower_taken"] == pytest.approx(100 * (1.25 ** (2 / 3) - 1))
    assert found["slower_cpu"] == pytest.approx(100 * ((1.05 * 1.1) ** (1 / 3) - 1))
    assert found["slower_work"] == pytest.approx(0)
    assert found["busy_single_p50"] == 1.1
    # All rounds agree on the first, and two of three on the other.
    assert found["slower_single_within"] == pytest.approx(0, abs=1e-6)
    apart = math.log(1.25)
    assert found["slower_taken_within"] == pytest.approx(
        100 * math.expm1(4.303 * apart / math.sqrt(3) / math.sqrt(3))
    )


def test_one_round_says_nothing_about_how_sure_it_is() -> None:
    rounds = [(Speed(1.0, 1000, 4.0, 3.0), Speed(1.1, 1000, 4.0, 3.0))]
    found = {figure.key: figure.value for figure in figures_of(rounds)}
    assert found["slower_single"] == pytest.approx(10)
    assert not [key for key in found if key.endswith("_within")]


def test_tables_of_several_names_follow_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    other = [replace(each, name="others", column=f"{each.column}!") for each in growth()]
    show({}, [*growth(), *other], Format.TABLE)
    heads = [line for line in capsys.readouterr().out.splitlines() if "FIGURE" in line]
    assert [head.split()[1:3] for head in heads] == [["10", "10,000"], ["10!", "10,000!"]]


def test_reports_of_rounds_come_to_their_medians() -> None:
    rounds = [
        Report("r", {}, (Figure("a", "A", a, "s"), Figure("b", "B", b, "s")), column="1")
        for a, b in ((1.0, 30.0), (3.0, 10.0), (2.0, 20.0))
    ]
    found = median_of(rounds)
    assert [figure.value for figure in found.figures] == [2.0, 20.0]
    assert (found.name, found.column) == ("r", "1")


def test_json_carries_keys_units_and_whether_goals_are_met(
    capsys: pytest.CaptureFixture[str],
) -> None:
    report = a_report().aiming({"ack_p99": at_most(5)})
    show(describe(), [report], Format.JSON)
    tree = json.loads(capsys.readouterr().out)
    assert tree["machine"].keys() >= {"cpu", "kernel", "python", "versions"}
    assert tree["reports"][0]["name"] == "produce"
    assert tree["reports"][0]["figures"] == [
        {"key": "mb_per_s", "value": 1234.5, "unit": "MB/s"},
        {"key": "ack_p99", "value": 7.123, "unit": "ms", "goal": 5, "is_met": False},
        {"key": "disk", "value": 2469, "unit": "MB/s", "ratio": 0.5},
    ]


def test_a_goal_for_a_figure_that_nobody_measures_is_a_bug() -> None:
    with pytest.raises(AssertionError, match="nobody measures"):
        a_report().aiming({"mb_per_hour": at_least(1)})


def test_the_file_system_is_that_of_the_longest_mount_point() -> None:
    mounts = "/dev/a / ext4 rw 0 0\ntmpfs /tmp tmpfs rw 0 0\n/dev/b /tmp2 xfs rw 0 0\n"
    assert mounted_at(Path("/tmp/x"), mounts) == "tmpfs (tmpfs)"
    assert mounted_at(Path("/tmp2"), mounts) == "xfs (/dev/b)"
    assert mounted_at(Path("/tmp3"), mounts) == "ext4 (/dev/a)"
    hidden = mounts + "overlay / overlay rw 0 0\n"
    assert mounted_at(Path("/srv"), hidden) == "overlay (overlay)"


def test_the_disk_reference_appends_and_leaves_nothing(tmp_path: Path) -> None:
    assert append_durably(tmp_path / "one", [bytes(CHUNK_BYTES)], 0.0) > 0
    assert asyncio.run(measure_disk(tmp_path, 2, 0.01)) > 0
    assert list(tmp_path.iterdir()) == []


async def test_the_grpc_reference_takes_the_time_of_each_round_trip() -> None:
    times = await measure_round_trips(100, 0.1)
    assert len(times) > 1
    assert all(0 < each < 5 for each in times)
    assert sum(times) >= 0.09


async def test_the_grpc_reference_keeps_messages_in_flight() -> None:
    assert await measure_rate(1 << 16, 4, 0.1) > 0


async def test_a_hop_of_the_pipeline_carries_one_small_message_and_gathers_the_rest() -> None:
    outbox: Outbox[str] = Outbox()
    outbox.put("a", 10)
    assert await outbox.take() == ["a"]
    outbox.put("b", 10)
    outbox.put("c", 10)
    taking = asyncio.create_task(outbox.take())
    await asyncio.sleep(0)
    assert not taking.done()
    outbox.arrived()
    assert await taking == ["b", "c"]


async def test_a_hop_of_the_pipeline_carries_several_large_messages_each_bounded() -> None:
    outbox: Outbox[int] = Outbox()
    for number in range(40):
        outbox.put(number, TOGETHER_BYTES_MAX // 2)
    taken = [await outbox.take() for _ in range(IN_FLIGHT_MAX)]
    assert taken == [[2 * number, 2 * number + 1] for number in range(IN_FLIGHT_MAX)]
    taking = asyncio.create_task(outbox.take())
    await asyncio.sleep(0)
    assert not taking.done()
    outbox.arrived()
    assert len(await taking) == 2


async def test_the_bare_pipeline_acknowledges_messages_of_any_size_and_gathered_records(
    tmp_path: Path,
) -> None:
    assert await measure_pipeline(tmp_path / "first", 100, 4, 0.1) > 0
    ended: list[int] = []
    async with (
        pipeline_processes(tmp_path) as pipeline,
        pipeline_client(pipeline.address) as client,
    ):
        assert len(set(pipeline.pids)) == 3
        done = asyncio.Event()
        for number in range(500):
            client.send(b"x" * 10, partial(ended.append, number))
        client.send(b"x", done.set)
        await asyncio.wait_for(done.wait(), 30)
    assert ended == list(range(500))
    # Every byte is where the leader is and in one other place at least.
    stored = [
        sum(path.stat().st_size for path in (tmp_path / name).rglob("*.wal"))
        for name in ("leader", "follower-1", "follower-2")
    ]
    assert min(stored[0], sorted(stored)[1]) >= 5000
