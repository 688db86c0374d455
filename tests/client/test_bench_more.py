"""Reading, and groups of members: what is pure of them."""

from __future__ import annotations

import asyncio

import pytest

from rakit.client.bench.group import Reads
from rakit.client.bench.members import Members, is_even
from rakit.client.bench.read import Passes, ReadSettings
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


def test_passes_are_told_as_rates_and_cpu_for_what_was_read() -> None:
    passes = Passes(2000, Spent(2, 1, [3, 1]))
    found = {figure.key: figure.value for figure in passes.figures("batch", "batches", 1000)}
    assert found["batch_mb_per_s"] == pytest.approx(1)
    assert found["batch_records_per_s"] == pytest.approx(1000)
    assert found["batch_nodes_cpu_s_per_gb"] == pytest.approx(2000)
    assert found["batch_client_cpu_s_per_gb"] == pytest.approx(500)
    assert ReadSettings(1000, 3).records == 3000
