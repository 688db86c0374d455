"""Memory that was freed is used again, by everything of the SDK that moves megabytes."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from rakit.client import Client, ClientConfig, GroupConfig, ProducerConfig, ReaderConfig
from rakit.client.consuming import session
from rakit.client.producing import engine
from rakit.client.reading import reader

from .fake_groups import FakeGroups
from .group_member import member

FAULTS = """
import resource, sys
from rakit.client.freed_memory import keep_freed_memory
kept, size = int(sys.argv[1]), int(sys.argv[2])
if kept:
    keep_freed_memory(kept)
piece = bytes(size)
for _ in range(20):
    copies = [b"".join([b"", piece, b"x"]) for _ in range(2)]
    del copies
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    copies = [b"".join([b"", piece, b"x"]) for _ in range(2)]
    del copies
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
MIB = 1 << 20


def faults(kept: int, size: int) -> int:
    command = [sys.executable, "-c", FAULTS, str(kept), str(size)]
    return int(subprocess.run(command, capture_output=True, check=True).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators do as they do")
@pytest.mark.parametrize(
    ("kept", "size"),
    [(4 * MIB, MIB), (16 * MIB, 15 * MIB), (1 << 50, 15 * MIB)],
    ids=["a batch", "answers", "more than there is"],
)
def test_what_was_freed_is_used_again(kept: int, size: int) -> None:
    with_it, without = faults(kept, size), faults(0, size)
    assert with_it * 10 < without, (with_it, without)


AGAIN = """
import resource
from rakit.client.freed_memory import keep_freed_memory
for size in (4, 16, 16, 8, 16, 16):
    keep_freed_memory(size << 20)
"""


def test_what_was_learnt_is_not_asked_for_again() -> None:
    count = "print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)"
    found = [
        int(subprocess.run([sys.executable, "-c", text], capture_output=True, check=True).stdout)
        for text in (AGAIN.replace("keep_freed_memory(size << 20)", "pass") + count, AGAIN + count)
    ]
    # 16 MiB that are cleared are 4,096 pages.
    assert found[1] - found[0] < 1000, found


@pytest.fixture(name="asked")
def asked_fixture(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    asked: list[int] = []
    for module in (engine, reader, session):
        monkeypatch.setattr(module, "keep_freed_memory", asked.append)
    return asked


@pytest.mark.parametrize(("held", "kept"), [(7 * MIB, 7 * MIB), (MIB, 4 * MIB)])
async def test_a_producer_keeps_as_much_as_it_may_hold_and_never_less_than_batches_take(
    client: Client, asked: list[int], held: int, kept: int
) -> None:
    async with client.producer(ProducerConfig(unacknowledged_bytes_max=held)):
        assert asked == [kept]


async def test_so_does_a_reader(client: Client, asked: list[int]) -> None:
    async with client.reader("t", config=ReaderConfig(buffer_bytes_max=5 * MIB)):
        assert asked == [5 * MIB]


async def test_so_does_a_member_of_a_group(groups: FakeGroups, asked: list[int]) -> None:
    config = GroupConfig(buffer_bytes_max=6 * MIB, auto_commit_ms=None)
    async with (
        Client(ClientConfig((groups.address,))) as client,
        member(groups, client, config),
    ):
        assert asked == [6 * MIB]
