"""The journal's rows: contiguity over the whole range, and that old ones go (S7)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from rakit.multiraft import keys
from rakit.multiraft.kv import Op, WriteBatch
from rakit.multiraft.store import RocksStore, StoreConfig, journal
from rakit.multiraft.store.journal import Journal
from tests.multiraft.store.support import (
    NODE,
    entries_in,
    open_breakable,
    wait_until,
    write_some,
)


def test_every_write_carries_its_row() -> None:
    rows = Journal(1)
    assert rows.operations(7) == [(Op.PUT, keys.journal_row(7), b"")]
    rows.written(0)
    assert rows.operations(8) == [(Op.PUT, keys.journal_row(8), b"")], "nothing is in tables"


def test_rows_go_once_tables_have_their_writes() -> None:
    rows = Journal(1)
    rows.written(6)
    assert rows.operations(13)[1:] == [
        (Op.DELETE_RANGE, keys.journal_row(1), keys.journal_row(6)),
        (Op.PUT, journal.LOW_MARK, (6).to_bytes(8, "big")),
    ], "all but one that a table has: its last key is to tell"
    rows.written(6)
    assert len(rows.operations(14)) == 1, "there is nothing new"


def test_s6_the_end_of_a_range_is_not_taken_for_the_row_of_a_write() -> None:
    """A table may end with it, and would seem to hold every write."""
    assert keys.is_journal_row(keys.journal_row(7))
    assert not keys.is_journal_row(keys.JOURNAL_ROWS[1])
    assert not keys.is_journal_row(b"\x01" + bytes(8))


def test_s12_a_batch_that_stalled_carries_the_same_rows_again() -> None:
    rows = Journal(1)
    rows.keep_from(5)
    first = rows.operations(6)
    assert len(first) == 3
    assert rows.operations(6) == first
    rows.written(0)
    assert len(rows.operations(7)) == 1, "done once it was written"


def test_rows_stay_few_while_a_store_runs_and_stay_whole(tmp_path: Path) -> None:
    # Three memtables of 64 KiB: when more wait for their flush, the writer is stalled.
    store, engine = open_breakable(replace(StoreConfig.small(tmp_path), write_buffer_count=3))
    for start in range(0, 500, 20):
        write_some(store, 20, value=bytes(4000), start=start)
        store.flush_wal()
        store.maintain()

    def are_few() -> bool:
        """2 MB went through, and a fifth of it is live."""
        store.maintain()
        write_some(store, 1)
        return journal.recover(engine).low > 300

    wait_until(are_few)
    recovered = journal.recover(engine)
    assert recovered.hole is None
    assert recovered.last == store.last_number
    held = sum(1 for _ in store.scan(*keys.JOURNAL_ROWS))
    assert held == recovered.last - recovered.low + 1
    store.close()


def test_opening_keeps_only_the_newest_row(tmp_path: Path) -> None:
    config = StoreConfig.small(tmp_path)
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
    batch = WriteBatch()
    batch.delete(keys.journal_row(gone))
    store.write(batch)
    recovered = journal.recover(engine)
    assert (recovered.last, recovered.hole) == (store.last_number, gone)
    store.close()
