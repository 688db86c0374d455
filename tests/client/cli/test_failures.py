"""What a person sees when something fails: soon, once, with what to do, and the right exit code."""

from __future__ import annotations

import asyncio
import fcntl
import mmap
import signal
import struct
import subprocess
import termios
import time
from pathlib import Path

import pytest

from rakit.client import UnavailableError
from rakit.client.cli import consume, produce
from rakit.client.cli.output import Format
from tests.client.fake_cluster import FakeCluster
from tests.client.test_reader import fill

from .command import Rakit

SOON_S = 20
FOR_EVER = 1 << 60


def wanted(count: int | None = None, *, follow: bool = False) -> consume.Wanted:
    return consume.Wanted("earliest", count, follow, consume.VALUE_LINES, Format.TABLE)


def fail_after_one_batch(fake: FakeCluster) -> None:
    """Lets the leader of partition 0 serve one batch; then nobody serves any more."""
    fake.nodes[1].break_reads_after = 1
    fake.nodes[1].refused_after_break = FOR_EVER
    fake.nodes[2].refused_reads = fake.nodes[3].refused_reads = FOR_EVER


async def test_nodes_that_are_gone_end_the_reading_of_what_is_there(
    fake: FakeCluster, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    fill(fake, 0, 2, 2)
    fail_after_one_batch(fake)
    monkeypatch.setattr(consume, "PATIENCE_MS", 300)
    async with asyncio.timeout(SOON_S):
        with pytest.raises(UnavailableError, match="the node is gone"):
            await consume.run(fake.bootstrap, "t", wanted())
    assert capsysbinary.readouterr() == (b"0/0\n0/1\n", b"")


async def test_a_follower_says_that_nodes_are_gone_and_goes_on_when_they_are_back(
    fake: FakeCluster, monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    fill(fake, 0, 2, 2, 2)
    fail_after_one_batch(fake)
    told: list[str] = []
    is_told = asyncio.Event()

    def complain(text: str) -> None:
        told.append(text)
        is_told.set()

    monkeypatch.setattr(consume, "complain", complain)
    monkeypatch.setattr(consume, "PATIENCE_MS", 100)
    async with asyncio.timeout(SOON_S):
        following = asyncio.create_task(consume.run(fake.bootstrap, "t", wanted(5, follow=True)))
        await is_told.wait()
        # Several times its patience: it is said once.
        await asyncio.sleep(0.5)
        assert not following.done()
        for node in fake.nodes.values():
            node.refused_reads = 0
        assert await following == 0
    (line,) = told
    assert "the node is gone (UNREACHABLE); is a node running there?" in line
    assert line.endswith("; trying again until Ctrl-C")
    assert capsysbinary.readouterr().out == b"0/0\n0/1\n0/2\n0/3\n0/4\n"


def test_the_first_record_that_fails_is_told_at_once_and_ends_the_command(rakit: Rakit) -> None:
    rakit.ask("topic", "create", "gone")
    with rakit.start("produce", "gone") as process:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write(b"stored\n")
        process.stdin.flush()
        assert rakit.ask("consume", "gone", "--follow", "-n", "1")[0] == "stored\n"
        rakit.ask("topic", "delete", "gone")
        process.stdin.write(b"lost\n")
        process.stdin.flush()
        # Stdin stays open: nobody has to end it for this to be told.
        line = process.stderr.readline().decode()
        assert process.wait(SOON_S) == 1
        assert process.stderr.read() == b""
    assert "(UNKNOWN_TOPIC); `rakit topic list` shows the topics" in line
    assert line.endswith("; no line is taken after this\n")


async def test_what_was_taken_before_a_failure_is_delivered(
    fake: FakeCluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    fake.may_answer.clear()
    file = tmp_path / "lines"
    file.write_bytes(b"one\ntwo\n" + bytes(17 << 20))
    told: list[str] = []

    def complain(text: str) -> None:
        # Only now anything is acknowledged.
        told.append(text)
        fake.may_answer.set()

    monkeypatch.setattr(produce, "complain", complain)
    async with asyncio.timeout(SOON_S):
        assert await produce.run(fake.bootstrap, "t", produce.Source(file, None), None) == 1
    (line,) = told
    assert line.startswith("a line is longer than 16 MiB")
    assert line.endswith("; no line is taken after this")
    assert sorted(value for one in fake.topics["t"] for value in one.values()) == [b"one", b"two"]


def until_full(process: subprocess.Popen[bytes]) -> None:
    """Waits until the pipe of its stdout takes no more."""
    assert process.stdout is not None
    capacity = fcntl.fcntl(process.stdout, fcntl.F_GETPIPE_SZ)
    deadline = time.monotonic() + SOON_S
    held = 0
    # Its last page is not always filled.
    while held <= capacity - mmap.PAGESIZE:
        assert time.monotonic() < deadline, f"{held} of {capacity} bytes in the pipe"
        (held,) = struct.unpack("i", fcntl.ioctl(process.stdout, termios.FIONREAD, b"\0" * 4))
        time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_heard_while_nobody_reads_the_output(rakit: Rakit, number: int) -> None:
    if "blocked" not in rakit.ask("topic", "list")[0]:
        rakit.ask("topic", "create", "blocked")
        rakit.run("produce", "blocked", feed=b"x" * 999 + b"\n" + (b"y" * 999 + b"\n") * 500)
    with rakit.start("consume", "blocked") as process:
        until_full(process)
        process.send_signal(number)
        assert process.wait(SOON_S) == 1
        assert process.stderr is not None
        assert process.stderr.read() == b"rakit: interrupted\n"
