"""The journal's rows: contiguity over the whole range, and that old ones go (S7)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from rakit.multiraft.kv import Op
from rakit.multiraft.store import RocksStore, StoreConfig, journal
from rakit.multiraft.store.directory import live_wals
from rakit.multiraft.store.journal import Journal
from tests.multiraft.store.support import NODE, entries_in, open_breakable, write_some


def no_wals() -> list[int]:
    raise AssertionError("looked at the directory before it was time")


def test_every_batch_carries_its_row() -> None:
    rows = Journal(1, mark_bytes=100)
    assert rows.operations(7) == [(Op.PUT, journal.row(7), b"")]
    rows.written(7, 99, no_wals)


def test_rows_go_once_no_live_wal_can_hold_their_batches() -> None:
    rows = Journal(1, mark_bytes=10)
    rows.written(5, 10, lambda: [4])
    rows.written(9, 10, lambda: [4, 8])
    assert rows.operations(10) == [(Op.PUT, journal.row(10), b"")], "WAL 4 is still there"
    rows.written(12, 10, lambda: [8])
    assert rows.operations(13)[1:] == [
        (Op.DELETE_RANGE, journal.row(1), journal.row(6)),
        (Op.PUT, journal.LOW_MARK, (6).to_bytes(8, "big")),
    ], "up to the mark made in WAL 4; write 6 may be in WAL 8"


def test_s12_a_batch_that_stalled_carries_the_same_rows_again() -> None:
    rows = Journal(1, mark_bytes=10)
    rows.keep_from(5)
    first = rows.operations(6)
    assert len(first) == 3
    assert rows.operations(6) == first
    rows.written(6, 1, no_wals)
    assert len(rows.operations(7)) == 1, "done once it was written"


def test_rows_stay_few_while_a_store_runs_and_stay_whole(tmp_path: Path) -> None:
    # Three memtables of 64 KiB: when more wait for their flush, the writer is stalled.
    store, engine = open_breakable(replace(StoreConfig.small(tmp_path), write_buffer_count=3))
    write_some(store, 500, value=bytes(4000))
    recovered = journal.recover(engine)
    assert recovered.hole is None
    assert recovered.last == store.last_number
    assert recovered.low > 300, "2 MB went through, and a fifth of it is live"
    held = sum(1 for _ in store.scan(journal.row(0), journal.row(2**63)))
    assert held == recovered.last - recovered.low + 1
    store.close()


def test_opening_keeps_only_the_newest_row(tmp_path: Path) -> None:
    config = replace(StoreConfig.small(tmp_path), journal_mark_bytes=1 << 30)
    store = RocksStore.open(config, NODE)
    write_some(store, 100)
    store.close()
    store, engine = open_breakable(config)
    assert journal.recover(engine).low == store.last_number - 1
    assert entries_in(store) == list(range(100))
    store.close()


@pytest.mark.parametrize("gone", [1, 5, 11])
def test_recover_names_the_first_missing_row(tmp_path: Path, gone: int) -> None:
    store, engine = open_breakable(StoreConfig.small(tmp_path))
    write_some(store, 10)
    engine.write([(Op.DELETE, journal.row(gone), b"")])
    recovered = journal.recover(engine)
    if gone == store.last_number:
        assert (recovered.last, recovered.hole) == (gone - 1, None), "the witness tells this one"
    else:
        assert (recovered.last, recovered.hole) == (store.last_number, gone)
    store.close()


def test_live_wals_are_told_in_order(tmp_path: Path) -> None:
    for name in ("000010.log", "000009.log", "LOG", "000011.sst", "1000000.log"):
        (tmp_path / name).touch()
    assert live_wals(tmp_path) == [9, 10, 1_000_000]
