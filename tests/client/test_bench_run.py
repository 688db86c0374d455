"""Tiny real runs against one node, in its own process."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from types import SimpleNamespace
from typing import cast
from unittest.mock import AsyncMock

import pytest
from psutil import Process

from rakit.client.bench import busy, population
from rakit.client.bench.busy import Contender, compare
from rakit.client.bench.client import ClientSettings, bench_client
from rakit.client.bench.latency import LatencySettings, bench_latency
from rakit.client.bench.machine import file_system
from rakit.client.bench.population import all_led, client_of, in_place, populate
from rakit.client.bench.produce import Interface, ProduceSettings, bench_produce, measure
from rakit.client.bench.report import Report
from rakit.client.bench.target import Target, own_cluster
from rakit.client.bench.usage import Usage
from rakit.client.cli.complaints import CommandError
from rakit.client.client import Client


@pytest.fixture
async def node() -> AsyncIterator[Target]:
    async with own_cluster(1) as target:
        yield target


def values(report: Report) -> dict[str, float]:
    return {figure.key: figure.value for figure in report.figures}


async def test_produce_and_latency_measure_a_real_node_and_leave_no_topic(node: Target) -> None:
    said: list[str] = []
    settings = ProduceSettings(100, 1 << 16, 2, 0.5, warm_up_seconds=0.2)
    produced = await bench_produce(node.bootstrap, settings, said.append)
    found = values(produced)
    assert found["records_per_s"] > 1000
    assert found["mb_per_s"] == pytest.approx(found["records_per_s"] * 100 / 1e6)
    assert 0 < found["ack_p50"] <= found["ack_p99"] <= found["ack_max"]
    assert found["grpc_mb_per_s"] > 0
    # Nothing is known of processes and disks of others.
    assert found.keys().isdisjoint(
        {
            "nodes_cpu_s",
            "nodes_memory_peak_mb",
            "written_mb_per_mb",
            "disk_mb_per_s",
            "pipeline_mb_per_s",
        }
    )

    latency = await bench_latency(node.bootstrap, LatencySettings(200, 100, 0.4), said.append)
    found = values(latency)
    for load in ("single", "paced"):
        assert 0 < found[f"{load}_p50"] <= found[f"{load}_p99"] <= found[f"{load}_max"] < 5000
    assert said

    part = LatencySettings(1, 100, 0.3, partitions=1, of_maximum=0.01)
    report = await bench_latency(node.bootstrap, part, said.append)
    rate = report.settings["rate"]
    assert isinstance(rate, float)
    assert rate > 10
    assert f"{rate:g} records/s, p50" in {figure.text for figure in report.figures}

    async with Client(node.bootstrap) as client:
        assert await client.admin.list_topics() == []


async def test_what_quiet_groups_cost_is_measured(
    node: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    async with client_of(node) as client:
        found = await populate(node, client, 3, 0.5, said.append)
        (topic,) = await client.admin.list_topics()
    assert (found.groups, found.replicas, len(topic.partitions)) == (3, 3, 3)
    assert {figure.key for figure in found.figures} >= {"cpu_percent_max", "replica_kb"}
    assert 0 < found.led_s < 60
    monkeypatch.setattr(population, "IN_PLACE_S_MAX", 0.0)
    elsewhere = [replace(each, leader_node_id=7) for each in topic.partitions]
    moved = replace(topic, partitions=tuple(elsewhere))
    client = cast(
        "Client", SimpleNamespace(admin=SimpleNamespace(get_topic=AsyncMock(return_value=moved)))
    )
    with pytest.raises(CommandError, match="3 groups were not led by their first replica"):
        await in_place(client, [topic.name], said.append)
    assert said


async def test_a_busy_group_is_measured_here_and_in_an_empty_cluster_that_runs_beside_it(
    node: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(busy, "own_cluster", lambda: own_cluster(1))
    found = {
        figure.key: figure.value
        for figure in await compare(Contender(node, 0.0), 2, 0.5, 0.1, lambda _: None)
    }
    assert 0 < found["busy_single_p50"] < 1000
    assert found["busy_records_per_s"] > 1000
    # Slower by so many percent than the other one, which was measured: -100 would be no time.
    assert min(found[f"slower_{what}"] for what in ("single", "taken", "cpu", "work")) > -100
    assert min(found[f"slower_{what}_within"] for what in ("single", "taken")) > 0
    async with Client(node.bootstrap) as client:
        assert await client.admin.list_topics() == []


async def test_groups_without_leaders_are_waited_for_and_then_complained_of(
    node: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(population, "LED_S_MAX", 0.5)
    # The last client of a process to close waits for a thread of gRPC's; this one is closed later.
    async with Client(node.bootstrap) as client:
        await client.admin.get_cluster()
        with pytest.raises(CommandError, match="1 nodes were up for it"):
            await all_led(node.nodes, 0, "waiting", lambda _: None, up_count=3)


async def test_single_records_of_our_own_node_come_with_what_it_took(node: Target) -> None:
    settings = ProduceSettings(100, 1 << 16, 2, 0.5, Interface.RECORD, 0.1)
    measured = await measure(node, settings, lambda _: None)
    spent = measured.spent
    assert measured.records > 100
    assert spent.client_cpu_s > 0
    assert [seconds > 0 for seconds in spent.node_cpu_s] == [True]
    assert [size > 10_000_000 for size in spent.node_memory_peak_bytes] == [True]
    assert spent.memory_peak_bytes == spent.node_memory_peak_bytes[0]
    assert node.directory is not None
    kind = await asyncio.to_thread(file_system, node.directory)
    if not kind.startswith("tmpfs"):
        # What was under way when the time began, up to 4 MiB, was written before.
        assert sum(spent.node_written_bytes) > 100 * measured.records - (4 << 20)


async def test_memory_that_processes_share_is_divided_among_them() -> None:
    usage = Usage([os.getpid(), os.getpid()])
    usage.look()
    first, second = usage.memory_peak_bytes
    resident = Process().memory_info().rss
    assert 0 < first < resident or sys.platform != "linux"
    assert usage.memory_peak_sum_bytes <= first + second


async def test_what_a_client_can_do_is_measured_without_a_cluster() -> None:
    found = values(await bench_client(ClientSettings(100, 0.2), lambda _: None))
    assert set(found) == {
        f"{way}_per{unit}_s"
        for way in ("send", "send_batch", "singly", "iterated", "batched")
        for unit in ("", "_cpu")
    } | {"encoded_per_s"}
    assert all(value > 1_000 for value in found.values())
