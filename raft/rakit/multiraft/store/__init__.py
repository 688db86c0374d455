"""The node's disk: RocksDB made trustworthy for Raft.

    config      settings, one frozen object
    rocks       RocksStore: numbered writes, reads, poison
    syncer      the thread that makes writes durable
    opening     the sequence that decides whether a directory is believed
    identity    whose directory it is; birth of a store
    directory   layout, lock
    witness     proof outside RocksDB of how far the store had got
    journal     proof inside it that nothing between is missing
    ahead, wal  the write-ahead log, its files and their format
    tail        where the undamaged log ends, and what to do about the rest
    space       ballast, low-water mark
    reclaim     room back for what was deleted, when the disk gets tight
    uncompacted a store with a table that cannot be read goes on without rewriting tables
    discarding  a database that the cluster can spare is given up
    options     how RocksDB is set up, and the proof that it took
    engine      the only module that talks to rocksdict
    errors      what can go wrong, and the exit code it ends the process with

The rules are S4 to S13 of docs/GUARANTEES.md. A write is acknowledged after ``flush_wal``, never
before; a failed write or flush ends the process; a directory that contradicts its witness is
refused. Opening the store replays the log and holds the interpreter's lock meanwhile: open it
before anything that must answer in time is started.
"""

from rakit.multiraft.store.closing import close_in_time, in_time
from rakit.multiraft.store.config import StoreConfig
from rakit.multiraft.store.errors import (
    IdentityMismatchError,
    LossKind,
    LossReport,
    StoreDamagedError,
    StoreError,
    StoreFailedError,
    StoreFullError,
    StoreLockedError,
    WriteStalledError,
)
from rakit.multiraft.store.identity import Identity
from rakit.multiraft.store.rocks import RocksStore
from rakit.multiraft.store.syncer import Syncer

__all__ = [
    "Identity",
    "IdentityMismatchError",
    "LossKind",
    "LossReport",
    "RocksStore",
    "StoreConfig",
    "StoreDamagedError",
    "StoreError",
    "StoreFailedError",
    "StoreFullError",
    "StoreLockedError",
    "Syncer",
    "WriteStalledError",
    "close_in_time",
    "in_time",
]
