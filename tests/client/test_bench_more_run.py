"""Tiny real runs of reading, and of groups of members."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from rakit.client.bench.group import GroupSettings, bench_group
from rakit.client.bench.produce import ProduceSettings, measure
from rakit.client.bench.read import ReadSettings, bench_read
from rakit.client.bench.report import Report
from rakit.client.bench.target import Target, own_cluster
from rakit.client.client import Client
from rakit.client.config import ProducerConfig
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
