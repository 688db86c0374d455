"""Tiny real runs of reading, groups, unary calls, restarts and growth."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from rakit.client.bench.group import GroupSettings, bench_group
from rakit.client.bench.growth import Axis, GrowthSettings, Point, bench_growth, curve
from rakit.client.bench.produce import ProduceSettings, measure
from rakit.client.bench.read import ReadSettings, bench_read
from rakit.client.bench.report import Report
from rakit.client.bench.restart import RestartSettings, bench_restart
from rakit.client.bench.target import Target, own_cluster
from rakit.client.bench.unary import UnarySettings, bench_unary
from rakit.client.client import Client
from rakit.client.config import ProducerConfig
from rakit.client.demo.processes import STOP_TIMEOUT_S
from rakit.client.producing.producer import Producer


@pytest.fixture
async def node() -> AsyncIterator[Target]:
    async with own_cluster(1) as target:
        yield target


def quiet(_: str) -> None:
    """Nobody looks on."""


def values(report: Report) -> dict[str, float]:
    return {figure.key: figure.value for figure in report.figures}


async def test_reading_is_measured_on_a_real_node_and_leaves_no_topic(node: Target) -> None:
    settings = ReadSettings(100, 1, 2, readers=2, rate=200, seconds=0.3)
    found = values(await bench_read(node.bootstrap, settings, quiet))
    for way in ("record", "batch", "fan_out"):
        per_s = found[f"{way}_records_per_s"]
        assert per_s > 1000
        assert found[f"{way}_mb_per_s"] == pytest.approx(per_s * 100 / 1e6)
        assert found[f"{way}_client_cpu_s_per_gb"] > 0
    assert 0 < found["tail_p50"] <= found["tail_p99"] <= found["tail_max"] < 5000
    assert found["grpc_mb_per_s"] > 0
    async with Client(node.bootstrap) as client:
        assert await client.admin.list_topics() == []


async def test_a_group_reads_and_commits_everything_and_members_come_and_go(node: Target) -> None:
    settings = GroupSettings(members=2, partitions=4, record_bytes=100, fill_mb=1, rounds=1)
    found = values(await bench_group(node.bootstrap, settings, quiet))
    assert found["record_records_per_s"] > 1000
    assert found["batch_records_per_s"] > 1000
    for event in ("join", "leave", "kill"):
        assert 0 < found[f"{event}_median_s"] <= found[f"{event}_max_s"] < 60
        assert 0 < found[f"{event}_pause_max_s"] < 60
    # Before its grace is over nothing is given away.
    assert found["kill_median_s"] > 5


async def test_unary_calls_are_measured_beside_a_bare_server(node: Target) -> None:
    settings = UnarySettings(8, 100, 2, rounds=2, seconds=0.2)
    found = values(await bench_unary(node.bootstrap, settings, quiet))
    assert found["calls_per_s"] > 10
    assert found["echo_per_s"] > 10
    assert 0 < found["call_p50"] <= found["call_p99"]
    assert found["share_low"] <= found["share_median"]


async def test_a_cluster_with_data_is_killed_and_stopped_and_serves_again() -> None:
    settings = RestartSettings(0.002, 1000, 2)
    found = values(await bench_restart(settings, quiet))
    for end in ("killed", "stopped"):
        assert 0 < found[f"{end}_ready_s"] <= found[f"{end}_led_s"] < 60
        assert 0 < found[f"{end}_acknowledged_s"] < 60
    assert 0 < found["stop_s"] < STOP_TIMEOUT_S


async def test_each_of_several_producers_has_connections_of_its_own(
    node: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    clients: list[Client] = []
    make = Client.producer

    def producer(client: Client, config: ProducerConfig | None = None) -> Producer:
        clients.append(client)
        return make(client, config)

    monkeypatch.setattr(Client, "producer", producer)
    settings = ProduceSettings(100, 1 << 16, 2, 0.5, warm_up_seconds=0.1, producers=3)
    measured = await measure(node, settings, quiet)
    assert measured.records > 1000
    assert len(set(clients)) == 3


async def test_growth_has_a_column_for_each_point_and_for_each_part_of_the_log() -> None:
    produce = ProduceSettings(100, 1 << 16, 1, 0.3, warm_up_seconds=0.1)
    points = [Point(Axis.NODES, 1, produce, nodes=1), Point(Axis.NODES, 2, produce, nodes=2)]
    reports = await curve(points, 1, quiet)
    assert [report.column for report in reports] == ["1", "2"]
    settings = GrowthSettings((Axis.LOG_GB,), log_gb=2, gb_bytes=32_000_000)
    logs = [report async for report in bench_growth(settings, quiet)]
    assert [report.column for report in logs] == ["1", "2"]
    for report in (*reports, *logs):
        found = values(report)
        assert found["mb_per_s"] > 0
        assert found["nodes_cpu_s_per_gb"] > 0
