"""A process that writes a store and dies by SIGKILL. Run by ``support.crash_image``.

one-wal     200 synced writes of one entry each in one file of the log; the witness stands at write
            101
many-wals   200 synced writes over several files, none of which is flushed to a table; the witness
            stands at the last write
again       three more synced writes to a store that is there
unsynced    50 synced and 50 unsynced writes through the syncer
opening     the store is opened, and the process ends between two families that become tables
stopping    the same while the store is closed, after three more writes
earlier     leaves a store as an earlier version would that was killed: RocksDB's own log
behind      50 synced and 50 unsynced writes of a large and two small entries each, two groups in
            turn; all of it is in tables, and of group 1 the vote record says that it is committed
tables      writes of a small entry and a large row each, until there are tables
history     steps of a random history, with syncs and upkeep now and then; see ``history``
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import struct
import sys
import threading
from dataclasses import replace
from pathlib import Path

from rakit.multiraft import keys
from rakit.multiraft.checksum import crc32c
from rakit.multiraft.kv import WriteBatch
from rakit.multiraft.records import StoredHardState, encode_hard_state
from rakit.multiraft.store import (
    RocksStore,
    StoreConfig,
    Syncer,
    journal,
    options,
    retiring,
    segments,
)
from rakit.multiraft.store.directory import live_values, values_path
from rakit.multiraft.store.engine import RocksEngine
from rakit.multiraft.store.witness import SLOT_BYTES
from rakit.multiraft.stored_entries import encode_entry
from rakit.raft import Entry, EntryType, HardState
from tests.multiraft.store.conformance import key
from tests.multiraft.store.history import History, Kept, config_of
from tests.multiraft.store.support import NODE, entries, wait_until, write_patiently

COUNT = 200
WITNESSED_AT = 101
COMMIT_OF_2 = 60
_BACKGROUND_BYTES_PER_S = 20 << 10
#: A database that is let go of closes itself, which is no crash.
HELD: list[object] = []


def one_wal(config: StoreConfig) -> RocksStore:
    store = RocksStore.open(
        replace(config, write_buffer_bytes=1 << 20, wal_file_bytes=1 << 20), NODE
    )
    for number in range(COUNT):
        written = store.write(entries(number, bytes([number]) * 300))
        store.flush_wal()
        if written == WITNESSED_AT:
            store.save_witness(store.position())
    return store


def many_wals(config: StoreConfig) -> RocksStore:
    """Flushes take for ever, so that the log of the memtables stays alive."""
    options.BACKGROUND_BYTES_PER_S_MAX = _BACKGROUND_BYTES_PER_S
    store = RocksStore.open(config, NODE)
    for number in range(COUNT):
        store.write(entries(number, bytes([number]) * 2000))
        store.flush_wal()
    store.save_witness(store.position())
    return store


def again(config: StoreConfig) -> RocksStore:
    store = RocksStore.open(config, NODE)
    for number in range(COUNT, COUNT + 3):
        store.write(entries(number, b"again"))
    store.flush_wal()
    return store


def unsynced(config: StoreConfig) -> RocksStore:
    store = RocksStore.open(config, NODE)
    synced = threading.Event()

    def note(number: int) -> None:
        if number == store.last_number:
            synced.set()

    syncer = Syncer(store, note, lambda error: sys.exit(str(error)), lambda: None)
    syncer.start()
    for number in range(50):
        store.write(entries(number, b"synced"))
    syncer.request(store.last_number)
    wait_until(synced.is_set)
    for number in range(50, 100):
        store.write(entries(number, b"unsynced"))
    return store


def opening(config: StoreConfig) -> RocksStore:
    def die(self: RocksEngine) -> None:
        for family, _ in self._segments.values():  # pyright: ignore[reportPrivateUsage]
            family.flush()
        sys.stdout.write("0")
        sys.stdout.flush()
        os.kill(os.getpid(), signal.SIGKILL)

    RocksEngine._flush = die  # type: ignore[method-assign]  # pyright: ignore[reportPrivateUsage]
    return RocksStore.open(config, NODE)


def stopping(config: StoreConfig) -> RocksStore:
    def die(self: RocksEngine) -> None:
        for family, _ in self._segments.values():  # pyright: ignore[reportPrivateUsage]
            family.close()
        sys.stdout.write("0")
        sys.stdout.flush()
        os.kill(os.getpid(), signal.SIGKILL)

    RocksEngine.close = die  # type: ignore[method-assign]
    store = RocksStore.open(config, NODE)
    for number in range(COUNT, COUNT + 3):
        store.write(entries(number, b"again"))
    store.close()
    return store


def earlier(config: StoreConfig) -> RocksStore:
    """A hundred writes in RocksDB's own log; the rows of the journal where they were."""
    store = RocksStore.open(config, NODE)
    born = store.last_number
    store.close()
    database = config.directory / "db"
    engine = RocksEngine(database, config, create=False)
    HELD.append(engine)
    shutil.rmtree(database / "wal")
    raw = engine._db  # pyright: ignore[reportPrivateUsage]
    for number in range(born, born + 3):
        raw.delete(keys.journal_row(number))
    raw.put(journal.LOW_MARK, born.to_bytes(8, "big"))
    for number in range(born, born + 100):
        raw.put(bytes((keys.JOURNAL, 1)) + number.to_bytes(8, "big"), b"")
        raw.put(key(number - born), b"earlier")
    slot = struct.pack(">4sQQQQ", b"RKW1", 9, born, 7, 1234)
    slot = (slot + crc32c(slot).to_bytes(4, "big")).ljust(SLOT_BYTES, b"\0")
    (config.directory / "witness").write_bytes(slot * 2)
    return store


def tables(config: StoreConfig) -> RocksStore:
    store = RocksStore.open(config, NODE)
    number = 0
    while sum(path.stat().st_size > 0 for path in config.directory.glob("db/*.sst")) < 4:
        number += 1
        batch = entries(number, b"small")
        batch.put(keys.local(b"%d" % number), bytes(5000))
        write_patiently(store, batch)
    return store


def behind(config: StoreConfig) -> RocksStore:
    store = RocksStore.open(config, NODE)
    for number in range(100):
        store.write(of_two_groups(number))
        if number == 49:
            store.flush_wal()
    flush(store)
    return store


def of_two_groups(number: int) -> WriteBatch:
    """The write with this number of `behind`."""
    batch = WriteBatch()
    group_id, first = 1 + number % 2, 3 * (number // 2) + 1
    for index, size in ((first, 10), (first + 1, 5000), (first + 2, 20)):
        entry = Entry(1, index, EntryType.NORMAL, bytes([number]) * size)
        batch.put(keys.entry(group_id, index), encode_entry(group_id, entry))
    commit = first + 2 if group_id == 1 else min(first + 2, COMMIT_OF_2)
    stored = StoredHardState(HardState(term=1, vote=1, commit=commit), 1)
    batch.put(keys.hard_state(group_id), encode_hard_state(group_id, stored))
    return batch


def go_through_history(config: StoreConfig, seed: int, kept: list[Kept], steps: int) -> RocksStore:
    """Tells the numbers of the writes, and what was synced last."""
    rng = random.Random(f"upkeep {seed} {kept}")
    retiring.STEP_BYTES = 3000  # type: ignore[misc]  # pyright: ignore[reportConstantRedefinition]
    segments._SPARE_SEGMENTS = 0  # type: ignore[misc]  # pyright: ignore[reportPrivateUsage, reportConstantRedefinition]
    history = History(seed, kept)
    store = RocksStore.open(config_of(config.directory), NODE)
    numbers, synced, values = list[int](), store.position(), list[list[int]]()
    for _ in range(steps):
        numbers.append(write_patiently(store, history.step()))
        if rng.random() < 0.3:
            store.flush_wal()
            synced = store.position()
            values = sizes_of_values(config.directory / "db")
            if rng.random() < 0.5:
                store.save_witness(synced)
            store.maintain()
        elif rng.random() < 0.5:
            store.flush_wal()  # the power goes before it is done: whatever of it may be there
        if rng.random() < 0.7:
            store.upkeep()
    if rng.random() < 0.5:  # RocksDB is faster than the log
        flush(store)
    reached = [synced.number, synced.wal, synced.length]
    sys.stdout.write(json.dumps([numbers, values, reached]))
    return store


def flush(store: RocksStore) -> None:
    """Bring into tables whatever was written, synced or not."""
    engine = store._engine  # pyright: ignore[reportPrivateUsage]
    assert isinstance(engine, RocksEngine)
    engine._flush()  # pyright: ignore[reportPrivateUsage]


def sizes_of_values(database: Path) -> list[list[int]]:
    """Segment, first write and length of each file that there is."""
    return [[*each, values_path(database, *each).stat().st_size] for each in live_values(database)]


if __name__ == "__main__":
    kinds = {
        "one-wal": one_wal,
        "many-wals": many_wals,
        "again": again,
        "opening": opening,
        "stopping": stopping,
        "earlier": earlier,
        "unsynced": unsynced,
        "tables": tables,
        "behind": behind,
    }
    settings = StoreConfig.small(Path(sys.argv[1]))
    if sys.argv[2] == "history":
        lives = [
            (life, {int(group_id): last for group_id, last in lasts.items()})
            for life, lasts in json.loads(sys.argv[4])
        ]
        kept_open = go_through_history(settings, int(sys.argv[3]), lives, int(sys.argv[5]))
    else:
        kept_open = kinds[sys.argv[2]](settings)
        sys.stdout.write(str(kept_open.boot))
    sys.stdout.flush()
    os.kill(os.getpid(), signal.SIGKILL)
