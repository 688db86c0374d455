"""A process that writes a store and dies by SIGKILL. Run by ``support.crash_image``.

one-wal     200 synced writes of one entry each in one WAL; the witness stands at write 101
many-wals   200 synced writes over several WALs, none of which is flushed to a table; the witness
            stands at the last write
again       three more synced writes to a store that is there
unsynced    50 synced and 50 unsynced writes through the syncer
tables      writes of a small entry and a large row each, until there are tables
history     steps of a random history, with syncs and upkeep now and then; see ``history``
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import threading
from dataclasses import replace
from pathlib import Path

from rakit.multiraft import keys
from rakit.multiraft.store import (
    RocksStore,
    StoreConfig,
    Syncer,
    options,
    retiring,
    segments,
)
from tests.multiraft.store.history import History
from tests.multiraft.store.support import NODE, entries, wait_until, write_patiently

COUNT = 200
WITNESSED_AT = 101
_BACKGROUND_BYTES_PER_S = 20 << 10


def one_wal(config: StoreConfig) -> RocksStore:
    store = RocksStore.open(replace(config, write_buffer_bytes=1 << 20), NODE)
    for number in range(COUNT):
        written = store.write(entries(number, bytes([number]) * 300))
        position = store.position()
        store.flush_wal()
        if written == WITNESSED_AT:
            store.save_witness(position)
    return store


def many_wals(config: StoreConfig) -> RocksStore:
    """Flushes take for ever, so that the WALs of the memtables stay alive."""
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


def tables(config: StoreConfig) -> RocksStore:
    store = RocksStore.open(config, NODE)
    number = 0
    while sum(path.stat().st_size > 0 for path in config.directory.glob("db/*.sst")) < 4:
        number += 1
        batch = entries(number, b"small")
        batch.put(keys.local(b"%d" % number), bytes(5000))
        write_patiently(store, batch)
    return store


def go_through_history(config: StoreConfig, seed: int, kept: list[int], steps: int) -> RocksStore:
    """Tells the numbers of the writes, and what was synced last."""
    rng = random.Random(f"upkeep {seed} {kept}")
    retiring.STEP_BYTES = 3000  # type: ignore[misc]  # pyright: ignore[reportConstantRedefinition]
    segments._SPARE_SEGMENTS = 0  # type: ignore[misc]  # pyright: ignore[reportPrivateUsage, reportConstantRedefinition]
    history = History(seed, kept)
    store = RocksStore.open(replace(config, segment_bytes=64 << 10, reserve_bytes=0), NODE)
    numbers, synced = list[int](), store.position()
    for _ in range(steps):
        numbers.append(write_patiently(store, history.step()))
        if rng.random() < 0.3:
            position = store.position()
            store.flush_wal()
            synced = position
            if rng.random() < 0.5:
                store.save_witness(position)
            store.maintain()
        if rng.random() < 0.7:
            store.upkeep()
    sys.stdout.write(json.dumps([numbers, [synced.number, synced.wal, synced.length]]))
    return store


if __name__ == "__main__":
    kinds = {
        "one-wal": one_wal,
        "many-wals": many_wals,
        "again": again,
        "unsynced": unsynced,
        "tables": tables,
    }
    # Held until the end: a database that is let go of closes itself, which is no crash.
    settings = StoreConfig.small(Path(sys.argv[1]))
    if sys.argv[2] == "history":
        lives = [int(each) for each in sys.argv[4].split(",") if each]
        kept_open = go_through_history(settings, int(sys.argv[3]), lives, int(sys.argv[5]))
    else:
        kept_open = kinds[sys.argv[2]](settings)
        sys.stdout.write(str(kept_open.boot))
    sys.stdout.flush()
    os.kill(os.getpid(), signal.SIGKILL)
