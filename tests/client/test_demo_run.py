"""The demonstration from end to end, and that it believes nothing less than the whole."""

from __future__ import annotations

import asyncio
import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from rakit.client.cli import running
from rakit.client.demo import flights, run
from rakit.client.demo.flights import Flight
from rakit.client.demo.processes import SMALL_RESERVE
from rakit.client.demo.run import PARTITIONS, Acknowledgements, Story, ends_of, run_demo
from rakit.client.demo.verify import Verdict
from rakit.client.model import Digest, ReplicaDigest

KEPT = Verdict(sent=12, read=12, lost=0, doubled=0, out_of_order=0, wrong=0, gaps=0)
WHOLE = Digest(1, 9, 5, tuple(ReplicaDigest(node, "abc", "") for node in (1, 2, 3)))


def story(*digests: Digest, verdict: Verdict = KEPT) -> Story:
    return Story(verdict, list(digests), [5] * len(digests), 1.0, 1, 0.1, "node-1")


def test_a_story_is_kept_by_whole_and_equal_replicas() -> None:
    assert story(*[WHOLE] * PARTITIONS).kept
    assert not story(WHOLE, verdict=replace(KEPT, lost=1)).kept


@pytest.mark.parametrize(
    "digest",
    [
        # One replica agrees with itself, and two of three with each other.
        replace(WHOLE, replicas=WHOLE.replicas[:1]),
        replace(WHOLE, replicas=WHOLE.replicas[:2]),
        replace(WHOLE, replicas=(*WHOLE.replicas[:2], ReplicaDigest(3, "abd", ""))),
        replace(WHOLE, replicas=(*WHOLE.replicas[:2], ReplicaDigest(3, "", "down"))),
        # The same on all of them, but not all of it.
        replace(WHOLE, end_offset=4),
        replace(WHOLE, end_offset=6),
    ],
)
def test_a_story_is_not_kept_by_less(digest: Digest) -> None:
    assert not story(WHOLE, digest).kept
    out = io.StringIO()
    Console(file=out, width=200).print(run._table(story(WHOLE, digest)))
    assert "digest of partition 1" in out.getvalue()
    assert "abc… on all 3 replicas" in out.getvalue()
    assert f"up to {digest.end_offset} of 5" in out.getvalue()


def test_partitions_end_behind_what_was_acknowledged() -> None:
    assert ends_of([(0, 3), (0, 2), (5, 0)]) == [4, 0, 0, 0, 0, 1]


async def test_a_milestone_that_has_passed_is_not_waited_for() -> None:
    acks = Acknowledgements()
    waiting = asyncio.create_task(acks.reach(10))
    await asyncio.sleep(0)
    acks.note(9)
    await asyncio.sleep(0)
    assert not waiting.done()
    acks.note(1)
    async with asyncio.timeout(5):
        await waiting
        await acks.reach(10)


def use(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """Gives the demonstration other rows, so that nothing is downloaded."""
    rows = [Flight(b"N%d" % (n % 97) if n % 7 else None, b"%d,row" % n) for n in range(count)]

    async def fetch() -> Path:
        return Path("nowhere")

    def read(_archive: Path) -> list[Flight]:
        return rows

    monkeypatch.setattr(flights, "fetch", fetch)
    monkeypatch.setattr(flights, "read", read)


@pytest.mark.cluster
def test_the_demonstration_holds_with_real_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, 40_000)
    out = io.StringIO()
    assert running.run(run_demo(Console(file=out, width=120))) == 0
    told = out.getvalue()
    assert "SIGKILL to node-" in told
    assert "is back" in told
    for line in ("records sent", "records read"):
        assert f"{line} " in told
        assert "40,000" in told
    assert told.count("… on all 3 replicas") == PARTITIONS
    assert told.rstrip().endswith("every promise held")


@pytest.mark.cluster
def test_the_demonstration_does_not_count_what_was_not_fsynced(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    use(monkeypatch, 2_000)
    monkeypatch.setattr(run, "SMALL_RESERVE", (*SMALL_RESERVE, "--unsafe-no-fsync"))
    assert running.run(run_demo(Console(file=io.StringIO()))) == 1
    assert "acknowledged without fsync" in capsys.readouterr().err
