"""A process that writes a store and dies by SIGKILL. Run by ``support.crash_image``.

one-wal     200 synced writes of one entry each in one WAL; the witness stands at write 101
many-wals   200 synced writes over several WALs, none of which is flushed to a table; the witness
            stands at the last write
again       three more synced writes to a store that is there
unsynced    50 synced and 50 unsynced writes through the syncer
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

from rakit.multiraft.store import RocksStore, StoreConfig, Syncer, options
from tests.multiraft.store.support import NODE, entries, wait_until

COUNT = 200
WITNESSED_AT = 101
_MEMTABLES_PER_FLUSH = 30


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
    """Memtables are kept until there are many, so that their WALs stay alive."""
    real = options.settings

    def merging(config: StoreConfig, **named: Any) -> dict[str, dict[str, str]]:
        sections = real(config, **named)
        family = sections['CFOptions "default"']
        family["min_write_buffer_number_to_merge"] = str(_MEMTABLES_PER_FLUSH)
        return sections

    options.settings = merging
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


if __name__ == "__main__":
    kinds = {"one-wal": one_wal, "many-wals": many_wals, "again": again, "unsynced": unsynced}
    # Held until the end: a database that is let go of closes itself, which is no crash.
    kept_open = kinds[sys.argv[2]](StoreConfig.small(Path(sys.argv[1])))
    sys.stdout.write(str(kept_open.boot))
    sys.stdout.flush()
    os.kill(os.getpid(), signal.SIGKILL)
