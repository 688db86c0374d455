"""The syncer thread: group commit, the witness behind it, the end after a failure."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from rakit.multiraft.store import RocksStore, StoreConfig, StoreFailedError, Syncer
from rakit.multiraft.store import space as spaces
from rakit.multiraft.store.space import Room
from rakit.multiraft.store.witness import Witness, WitnessFile
from tests.multiraft.store.support import (
    DEAD_DISK,
    NODE,
    FailingEngine,
    crash_image,
    entries_in,
    open_breakable,
    open_store,
    wait_until,
    write_some,
)


class Reports:
    """What a syncer reported."""

    def __init__(self) -> None:
        self.synced: list[int] = []
        self.failures: list[StoreFailedError] = []
        self.ended = threading.Event()

    def await_syncs(self, count: int) -> None:
        wait_until(lambda: len(self.synced) == count)


@pytest.fixture
def opened(tmp_path: Path) -> Iterator[tuple[RocksStore, FailingEngine]]:
    store, engine = open_breakable(StoreConfig.small(tmp_path / "n1"))
    yield store, engine
    engine.flush_gate.set()
    store.close()


@pytest.fixture
def store(opened: tuple[RocksStore, FailingEngine]) -> RocksStore:
    return opened[0]


@pytest.fixture
def engine(opened: tuple[RocksStore, FailingEngine]) -> FailingEngine:
    return opened[1]


@pytest.fixture
def reports() -> Reports:
    return Reports()


@pytest.fixture
def syncer(store: RocksStore, engine: FailingEngine, reports: Reports) -> Iterator[Syncer]:
    syncer = Syncer(store, reports.synced.append, reports.failures.append, reports.ended.set)
    syncer.start()
    yield syncer
    engine.flush_gate.set()
    syncer.close()


def test_a_request_is_reported_once_its_write_is_durable(
    store: RocksStore, syncer: Syncer, reports: Reports
) -> None:
    number = write_some(store, 1)
    syncer.request(number)
    wait_until(lambda: reports.synced[-1:] == [number])
    assert store.synced_counter == number


def test_a_request_wakes_a_syncer_that_sleeps(tmp_path: Path, reports: Reports) -> None:
    config = StoreConfig.small(tmp_path / "n1")
    store = RocksStore.open(replace(config, witness_interval_ms=60_000), NODE)
    syncer = Syncer(store, reports.synced.append, reports.failures.append, reports.ended.set)
    syncer.start()
    for count in range(1, 4):
        syncer.request(write_some(store, 1))
        reports.await_syncs(count)
    syncer.close()
    assert reports.ended.is_set()
    store.close()


def test_writes_during_a_flush_gather_and_share_the_next(
    store: RocksStore, engine: FailingEngine, syncer: Syncer, reports: Reports
) -> None:
    engine.flush_gate.clear()
    first = last = write_some(store, 1)
    syncer.request(first)
    assert engine.flush_begun.wait(20)
    for _ in range(50):
        last = write_some(store, 1)
        syncer.request(last)
    assert syncer.in_flight_since() is not None, "S13 watches how long a flush takes"
    engine.flush_gate.set()
    wait_until(lambda: last in reports.synced)
    assert reports.synced[0] == first, "a flush covers only what was written before it began"
    assert reports.synced[1] == last, "one flush for all fifty"
    wait_until(lambda: syncer.in_flight_since() is None)


def test_an_old_request_asks_for_nothing(
    store: RocksStore, syncer: Syncer, reports: Reports
) -> None:
    number = write_some(store, 1)
    syncer.request(number)
    wait_until(lambda: number in reports.synced)
    seen = len(reports.synced)
    syncer.request(number)
    syncer.close()
    assert reports.synced[seen:] in ([], [number]), "at most the witness's own flush"


def test_s7_the_witness_catches_up_when_writes_cease(
    tmp_path: Path, store: RocksStore, syncer: Syncer
) -> None:
    number = write_some(store, 3)
    syncer.request(number)
    wait_until(lambda: WitnessFile.load(tmp_path / "n1" / "witness").current.number == number)


def test_s7_the_witness_never_speaks_of_what_was_not_synced(
    tmp_path: Path, store: RocksStore, engine: FailingEngine, syncer: Syncer
) -> None:
    engine.flush_gate.clear()
    before = WitnessFile.load(tmp_path / "n1" / "witness").current
    syncer.request(write_some(store, 3))
    assert engine.flush_begun.wait(20)
    assert WitnessFile.load(tmp_path / "n1" / "witness").current == before


def test_s7_the_witness_is_what_a_flush_has_covered(
    store: RocksStore,
    engine: FailingEngine,
    syncer: Syncer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of the end of the log it would vouch for writes that slipped in beside the flush."""
    position, save = store.position, store.save_witness

    def noted_position(_: RocksStore) -> Witness:
        engine.calls.append("position")
        return position()

    def noted_save(_: RocksStore, reached: Witness) -> None:
        engine.calls.append("witness")
        save(reached)

    monkeypatch.setattr(RocksStore, "position", noted_position)
    monkeypatch.setattr(RocksStore, "save_witness", noted_save)
    syncer.request(write_some(store, 1))
    wait_until(lambda: "witness" in engine.calls)
    at = engine.calls.index("witness")
    assert engine.calls[at - 2 : at] == ["flush_wal", "position"]


def test_s12_the_ballast_comes_back_though_nothing_is_written(
    tmp_path: Path, store: RocksStore, syncer: Syncer, engine: FailingEngine
) -> None:
    """Else a node whose disk has room again would refuse produce until somebody wrote."""
    ballast = tmp_path / "n1" / "ballast"
    ballast.unlink()
    wait_until(ballast.exists)
    wait_until(lambda: not store.low_space)
    syncer.close()
    assert "flush_wal" not in engine.calls, "upkeep alone syncs nothing"


def test_s12_room_that_runs_out_is_seen_while_it_is_written_to(
    store: RocksStore, syncer: Syncer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two upkeeps too, which are further apart than it takes to fill a small reserve."""
    monkeypatch.setattr(RocksStore, "maintain", _nothing)
    monkeypatch.setattr(spaces, "room", _no_room)

    def is_seen() -> bool:
        syncer.request(write_some(store, 1))
        return store.low_space

    wait_until(is_seen)


def test_s13_a_disk_that_hangs_while_nothing_is_written_is_noticed(
    store: RocksStore, syncer: Syncer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is written afterwards would wait for it unseen."""
    answers = threading.Event()

    def hang(_: RocksStore) -> None:
        answers.wait()

    monkeypatch.setattr(RocksStore, "maintain", hang)
    try:
        wait_until(lambda: syncer.in_flight_since() is not None)
        assert not store.low_space, "nobody else waits for that disk"
    finally:
        answers.set()


def _no_room(_: Path) -> Room:
    return Room(0, 1 << 30)


def _nothing(_: RocksStore) -> None:
    """No upkeep."""


def test_closing_serves_what_was_requested(
    store: RocksStore, syncer: Syncer, reports: Reports
) -> None:
    number = write_some(store, 5)
    syncer.request(number)
    assert not reports.ended.is_set()
    syncer.close()
    assert reports.synced[-1] == number
    assert reports.ended.is_set()


def test_s12_a_failed_flush_is_reported_once_and_never_tried_again(
    store: RocksStore, engine: FailingEngine, syncer: Syncer, reports: Reports
) -> None:
    engine.texts["flush_wal"] = DEAD_DISK
    syncer.request(write_some(store, 1))
    wait_until(lambda: bool(reports.failures))
    syncer.request(store.last_number + 1)
    syncer.close()
    assert reports.ended.is_set()
    assert [failure.exit_code for failure in reports.failures] == [11]
    assert engine.calls.count("flush_wal") == 1
    assert reports.synced == []
    assert store.failed is reports.failures[0]


def test_s12_a_witness_that_cannot_be_written_is_a_failed_store(
    tmp_path: Path, store: RocksStore, syncer: Syncer, reports: Reports
) -> None:
    (tmp_path / "n1" / "witness").unlink()
    syncer.request(write_some(store, 1))
    wait_until(lambda: bool(reports.failures))
    assert "witness" in str(reports.failures[0])


def test_a_killed_process_loses_nothing_that_it_has_synced(tmp_path: Path) -> None:
    crash_image(tmp_path / "n1", "unsynced")
    store = open_store(tmp_path / "n1")
    found = entries_in(store)
    assert found == list(range(len(found)))
    assert len(found) >= 50
    store.close()
