"""How values are laid out in the store, and how damage to them is noticed.

Every value carries a CRC32C that also covers where it belongs, so that a value under a wrong key
(a misdirected block, a bug in a key) is damage too. Log entries have a layout of their own
(`stored_entries`); all else is rare and is a protobuf message behind its checksum.

Decoding raises `StoreCorruptError`: the caller quarantines the group.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final, TypeVar

from google.protobuf.message import DecodeError, Message

from rakit.multiraft import keys
from rakit.multiraft.checkpoint import Checkpoint
from rakit.multiraft.checksum import crc32c, crc32c_extend
from rakit.multiraft.errors import StoreCorruptError
from rakit.multiraft.machine import GroupKind, GroupMeta
from rakit.peer.v1 import store_pb2
from rakit.raft import ConfState, HardState

_CHECKSUM: Final = struct.Struct(">I")

_M = TypeVar("_M", bound=Message)


@dataclass(frozen=True, slots=True)
class BirthRecord:
    """Who a replica is and whether it is one of the group's first members."""

    meta: GroupMeta
    initial: bool


@dataclass(frozen=True, slots=True)
class StoredCheckpoint:
    """A checkpoint, how many bytes of log this replica had stored up to it, and whose it is."""

    checkpoint: Checkpoint
    log_bytes: int
    replica_id: int


@dataclass(frozen=True, slots=True)
class StoredHardState:
    """A vote record, and whose it is."""

    state: HardState
    replica_id: int


@dataclass(frozen=True, slots=True)
class RememberedStore:
    """What a node remembers of another node's store (S7)."""

    node_id: int
    #: The highest count that was ever heard to be synced.
    synced_counter: int = 0
    #: The start that it was heard of, and what that start opened with.
    boot_epoch: int = 0
    opened_counter: int = 0
    #: A later start opened with less than had been synced: the store is not talked to any more.
    went_back: bool = False
    #: What that start opened with.
    returned_counter: int = 0
    #: What the version reads that greeted last on it; 0: none has told it.
    feature_level: int = 0


def encode_hard_state(group_id: int, stored: StoredHardState) -> bytes:
    """Returns the stored value of a vote record."""
    state = stored.state
    record = store_pb2.StoredHardState(
        term=state.term, vote=state.vote, commit=state.commit, replica_id=stored.replica_id
    )
    return _seal(keys.hard_state(group_id), record)


def decode_hard_state(group_id: int, value: bytes) -> StoredHardState:
    """Reads a vote record."""
    record = _open(keys.hard_state(group_id), value, store_pb2.StoredHardState)
    return StoredHardState(HardState(record.term, record.vote, record.commit), record.replica_id)


def encode_checkpoint(group_id: int, stored: StoredCheckpoint) -> bytes:
    """Returns the stored value of a checkpoint."""
    checkpoint = stored.checkpoint
    conf = checkpoint.conf_state
    record = store_pb2.StoredCheckpoint(
        index=checkpoint.index,
        term=checkpoint.term,
        conf_state=store_pb2.StoredConfState(
            voters=conf.voters,
            learners=conf.learners,
            voters_outgoing=conf.voters_outgoing,
            learners_next=conf.learners_next,
            auto_leave=conf.auto_leave,
        ),
        data=checkpoint.data,
        log_bytes=stored.log_bytes,
        replica_id=stored.replica_id,
        part_crc32cs=checkpoint.parts,
    )
    return _seal(keys.checkpoint(group_id, checkpoint.index), record)


def decode_checkpoint(group_id: int, index: int, value: bytes) -> StoredCheckpoint:
    """Reads a checkpoint."""
    record = _open(keys.checkpoint(group_id, index), value, store_pb2.StoredCheckpoint)
    if record.index != index:
        raise StoreCorruptError(f"checkpoint {index} of group {group_id} says it is {record.index}")
    conf = ConfState(
        voters=tuple(record.conf_state.voters),
        learners=tuple(record.conf_state.learners),
        voters_outgoing=tuple(record.conf_state.voters_outgoing),
        learners_next=tuple(record.conf_state.learners_next),
        auto_leave=record.conf_state.auto_leave,
    )
    parts = tuple(record.part_crc32cs)
    checkpoint = Checkpoint(index, record.term, conf, record.data, parts)
    return StoredCheckpoint(checkpoint, record.log_bytes, record.replica_id)


def encode_birth(birth: BirthRecord) -> bytes:
    """Returns the stored value of a birth record."""
    record = store_pb2.BirthRecord(
        group_id=birth.meta.group_id,
        replica_id=birth.meta.replica_id,
        kind=birth.meta.kind,
        initial=birth.initial,
    )
    return _seal(keys.birth(birth.meta.group_id), record)


def decode_birth(group_id: int, value: bytes) -> BirthRecord:
    """Reads a birth record."""
    record = _open(keys.birth(group_id), value, store_pb2.BirthRecord)
    try:
        meta = GroupMeta(record.group_id, record.replica_id, GroupKind(record.kind))
    except (ValueError, AssertionError) as error:
        raise StoreCorruptError(f"birth record of group {group_id}: {error}") from error
    return BirthRecord(meta, record.initial)


def encode_tombstone(group_id: int, replica_id: int) -> bytes:
    """Returns the stored value of a tombstone."""
    return _seal(keys.tombstone(group_id), store_pb2.Tombstone(replica_id=replica_id))


def decode_tombstone(group_id: int, value: bytes) -> int:
    """Reads a tombstone: the highest replica id of the group that is dead on this node."""
    return _open(keys.tombstone(group_id), value, store_pb2.Tombstone).replica_id


def encode_shut_out(key: bytes, replica_id: int, reason: str, *, at_fault: bool) -> bytes:
    """Returns the stored value of the row that keeps a replica shut out."""
    record = store_pb2.ShutOut(replica_id=replica_id, reason=reason, at_fault=at_fault)
    return _seal(key, record)


def decode_shut_out(key: bytes, value: bytes) -> tuple[int, str, bool]:
    """Reads which replica is shut out, why, and whether it is at fault."""
    record = _open(key, value, store_pb2.ShutOut)
    return record.replica_id, record.reason, record.at_fault


def encode_remembered(key: bytes, known: RememberedStore) -> bytes:
    """Returns the stored value of what is remembered of a store."""
    record = store_pb2.RememberedStore(
        node_id=known.node_id,
        synced_counter=known.synced_counter,
        boot_epoch=known.boot_epoch,
        opened_counter=known.opened_counter,
        went_back=known.went_back,
        returned_counter=known.returned_counter,
        feature_level=known.feature_level,
    )
    return _seal(key, record)


def decode_remembered(key: bytes, value: bytes) -> RememberedStore:
    """Reads what is remembered of a store."""
    record = _open(key, value, store_pb2.RememberedStore)
    return RememberedStore(
        record.node_id,
        record.synced_counter,
        record.boot_epoch,
        record.opened_counter,
        record.went_back,
        record.returned_counter,
        record.feature_level,
    )


def _seal(key: bytes, record: Message) -> bytes:
    payload = record.SerializeToString(deterministic=True)
    return _CHECKSUM.pack(crc32c_extend(crc32c(key), payload)) + payload


def _open(key: bytes, value: bytes, kind: type[_M]) -> _M:
    if len(value) < _CHECKSUM.size:
        raise StoreCorruptError(f"the value of key {key.hex()} is cut to {len(value)} bytes")
    payload = value[_CHECKSUM.size :]
    if crc32c_extend(crc32c(key), payload) != _CHECKSUM.unpack_from(value)[0]:
        raise StoreCorruptError(f"the value of key {key.hex()} fails its checksum")
    try:
        return kind.FromString(payload)
    except DecodeError as error:
        raise StoreCorruptError(f"the value of key {key.hex()}: {error}") from error
