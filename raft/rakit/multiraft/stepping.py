"""One group's Ready turned into effects: what leaves, what is written, what is applied.

The order within a Ready is the core's (see `rakit.raft.Ready`): messages that may leave at once,
then base, entries and vote record in one batch, then what was committed is applied, and what waits
for the disk is put on a flight that `land` completes when its batch is durable.

Rules:

- Entries, truncation and vote record of a Ready go into one batch (row 5). A Ready larger than the
  batch cap is written in several, each a prefix that is a legal log by itself: the term in the
  first, and in each the commit index as far as its entries reach. Without that a crash could leave
  two configuration changes above the commit index, and a replica that counts by members of two
  changes ago. Only the last batch completes the Ready: nothing is promised before all is durable.
- A Ready that need not be synced completes at once if no flight of its group is before it, else
  right after that flight (S18).
- Applied entries change the machine now; rows that the machine derives join the batch. Both are
  rebuilt by replay after a crash, so they need no sync of their own.
- A checkpoint is as of exactly the entry after which the machine asked for it. Its batch is synced,
  because trimming waits for that (S1). A large one is cut into parts, which go with as many batches
  as they need; its own row follows them, and until then it is as if it had not been taken.
- A log whose base is being fetched by another replica is not trimmed: what follows the base must
  still be there when it has arrived.
- A group does not take more than its share of a step, in Readys, written bytes and moved ones, but
  for the Ready that goes beyond.

Errors rise to the driver, which quarantines the group: `ReplicaFatalError` from the core,
`StoreCorruptError` from the log, `MachineFailedError` for anything the machine raises.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

from rakit.multiraft import keys
from rakit.multiraft.checkpoint import Checkpoint
from rakit.multiraft.checksum import crc32c
from rakit.multiraft.effects import Completion, Effects, Envelope, ReadReady, RoleChange
from rakit.multiraft.errors import MachineFailedError
from rakit.multiraft.group import Draft, Flight, Group, Remainder
from rakit.multiraft.kv import OPERATION_OVERHEAD_BYTES, WriteBatch
from rakit.multiraft.machine import GroupKind
from rakit.multiraft.stored_entries import ENTRY_HEAD_BYTES, stored_bytes
from rakit.multiraft.waiters import Settled
from rakit.raft import (
    ConfChange,
    DropKind,
    Dropped,
    Entry,
    EntryType,
    HardState,
    Message,
    Ready,
    Role,
    Snapshot,
    payload_bytes,
)

#: Readys of one group within one step; then others have their turn.
_READYS_PER_STEP_MAX = 4
#: What a turn of a group, and each entry that is applied, costs beside the bytes that it moves: so
#: much could be read and sent meanwhile. With 256 groups a step takes less than a tick.
TURN_COST_BYTES = 32 << 10
_ENTRY_COST_BYTES = 8 << 10
#: What an entry takes in a batch beside its payload: key, head and operation.
_ENTRY_WRITE_BYTES = 17 + ENTRY_HEAD_BYTES + OPERATION_OVERHEAD_BYTES


def step_group(group: Group, effects: Effects, batch_bytes_max: int, share_bytes: int) -> bool:
    """Does what the group has to do; tells whether more is left for its next turn.

    It stops when the batch is full, or when it has moved `share_bytes` itself.
    """
    moved_max = effects.moved_bytes + share_bytes
    effects.moved_bytes += TURN_COST_BYTES
    if group.draft is not None:
        _write_draft(group, group.draft, effects, batch_bytes_max)
    may_have_more = True
    for _ in range(_READYS_PER_STEP_MAX):
        if group.remainder is not None:
            if not _write_remainder(group, group.remainder, effects, batch_bytes_max):
                break
        elif group.raw.has_ready():
            _take_ready(group, effects, batch_bytes_max)
        else:
            may_have_more = False
            break
        if effects.batch.size_bytes >= batch_bytes_max or effects.moved_bytes >= moved_max:
            break
    _trim(group, effects.batch)
    answer_reads(group, effects)
    _announce(group, effects)
    if group.draft is not None:
        return True
    return may_have_more and (group.remainder is not None or group.raw.has_ready())


def land(group: Group, synced_number: int) -> list[Envelope]:
    """Completes the flights that are durable; returns what may leave by that."""
    freed: list[Envelope] = []
    flights = group.flights
    while flights and (flights[0].number <= synced_number or not flights[0].must_sync):
        flight = flights.pop(0)
        group.raw.on_persisted(flight.ready_number)
        freed += _envelopes(group, flight.messages)
    in_flight = group.checkpoints_in_flight
    while in_flight and in_flight[0][0] <= synced_number:
        group.durable_checkpoint = in_flight.pop(0)[1]
        group.wants_trim = True
    return freed


def give_up(group: Group, effects: Effects) -> None:
    """Answers everyone who waits: the replica is gone from this node."""
    _lose(group, group.proposals.abandoned(), effects)
    lose_reads(group, group.reads.abandoned(), effects)


def lose_reads(group: Group, tokens: Iterable[object], effects: Effects) -> None:
    """Answers reads that nobody will confirm."""
    for token in tokens:
        effects.reads.append(ReadReady(token, group.meta.group_id, 0, lost=True))


def answer_reads(group: Group, effects: Effects) -> None:
    """Answers the confirmed reads that the applied index has reached."""
    if len(group.reads):
        for token, index in group.reads.take_applied(group.applied):
            effects.reads.append(ReadReady(token, group.meta.group_id, index))


def _take_ready(group: Group, effects: Effects, batch_bytes_max: int) -> None:
    ready = group.raw.ready()
    if ready.messages:
        effects.sends += _envelopes(group, ready.messages)
        effects.moved_bytes += ready.sent_bytes
    if ready.soft_state is not None:
        group.role = ready.soft_state.role
        group.leader_replica = ready.soft_state.lead
    if ready.snapshot is not None:
        _install(group, ready.snapshot, effects)
    if ready.hard_state is not None:
        group.term = ready.hard_state.term
    effects.must_sync = effects.must_sync or ready.must_sync
    _write(group, ready, effects, batch_bytes_max)
    if ready.committed_entries:
        _apply(group, ready.committed_entries, effects)
    for state in ready.read_states:
        group.reads.confirmed(state.context, state.index)
    for dropped in ready.dropped:
        _drop(group, dropped, effects)
    for replica in ready.lost_logs:
        effects.lost_logs.append((group.meta.group_id, replica))
    group.ready = group.role is Role.LEADER and group.raw.leader_ready()


def _write(group: Group, ready: Ready, effects: Effects, batch_bytes_max: int) -> None:
    batch = effects.batch
    state = ready.hard_state
    if ready.entries and batch.size_bytes + _write_bytes(ready.entries) > batch_bytes_max:
        if state is not None:
            # Term and vote go before the entries, the commit index as far as the log is settled.
            commit = max(group.commit, min(state.commit, ready.entries[0].index - 1))
            group.storage.set_hard_state(HardState(state.term, state.vote, commit), batch)
        group.remainder = Remainder(
            deque(ready.entries), state, ready.number, ready.messages_after_persist
        )
        _write_remainder(group, group.remainder, effects, batch_bytes_max)
        return
    if ready.entries:
        group.storage.append(ready.entries, batch)
    if state is not None:
        group.storage.set_hard_state(state, batch)
    _take_off(
        group,
        effects,
        Flight(effects.number, ready.number, ready.must_sync, ready.messages_after_persist),
    )


def _write_remainder(group: Group, rest: Remainder, effects: Effects, bytes_max: int) -> bool:
    """Writes as much of a large Ready as the batch has room for; tells whether it wrote any.

    One entry is always written into an empty batch, however large.
    """
    chunk: list[Entry] = []
    room = bytes_max - effects.batch.size_bytes
    while rest.entries:
        room -= _write_bytes((rest.entries[0],))
        if room < 0 and (chunk or effects.batch):
            break
        chunk.append(rest.entries.popleft())
    if not chunk:
        return False
    group.storage.append(chunk, effects.batch)
    effects.must_sync = True
    state = rest.hard_state
    if state is not None:
        commit = min(state.commit, chunk[-1].index)
        group.storage.set_hard_state(HardState(state.term, state.vote, commit), effects.batch)
    if not rest.entries:
        group.remainder = None
        _take_off(
            group,
            effects,
            Flight(effects.number, rest.ready_number, must_sync=True, messages=rest.messages),
        )
    return True


def _write_bytes(entries: Sequence[Entry]) -> int:
    return sum([len(entry.data) for entry in entries]) + _ENTRY_WRITE_BYTES * len(entries)


def _take_off(group: Group, effects: Effects, flight: Flight) -> None:
    if flight.must_sync or group.flights:
        group.flights.append(flight)
        return
    group.raw.on_persisted(flight.ready_number)
    effects.sends += _envelopes(group, flight.messages)


def _install(group: Group, snapshot: Snapshot, effects: Effects) -> None:
    """Replaces log and state by a base; rows derived from the old log go with it.

    The parts of a large base are on the disk.
    """
    data, parts = snapshot.data, snapshot.parts
    if parts:
        data = group.storage.state(snapshot.index, parts)
    try:
        # First: a base that the machine cannot take over leaves nothing on the disk, where it would
        # lie beyond the commit index and look like a vote record that was lost.
        group.machine.restore(data, snapshot.index)
    except Exception as error:
        raise MachineFailedError(
            f"taking over the base as of {snapshot.index}: {error!r}"
        ) from error
    conf = snapshot.conf_state
    checkpoint = Checkpoint(snapshot.index, snapshot.term, conf, snapshot.data, parts)
    group.draft = None
    group.installing = False
    group.storage.install(checkpoint, effects.batch)
    effects.batch.delete_range(*keys.group_range(keys.POSITION, group.meta.group_id))
    group.checkpoints_in_flight.append((effects.number, snapshot.index))
    group.conf_state = conf
    group.applied = snapshot.index
    _note_applied(group, effects)
    _lose(group, group.proposals.covered(snapshot.index), effects)


def _apply(group: Group, entries: list[Entry], effects: Effects) -> None:
    assert entries[0].index == group.applied + 1, "an entry was skipped or applied twice"
    batch = effects.batch
    holders = 0
    for entry in entries:
        result = _apply_one(group, entry, batch)
        if entry.data:
            group.used = True
        group.applied = entry.index
        group.storage.applied_log_bytes += stored_bytes(entry)
        if len(group.proposals):
            # The core has the progress as of the whole Ready: enough to count once for all of it.
            holders = holders or group.holders(entries[-1].index)
            _complete(group, entry, result, holders, effects)
        if _is_command(entry) and group.machine.checkpoint_due():
            _store_checkpoint(group, entry, effects)
    size = payload_bytes(entries)
    group.raw.on_applied(entries[-1].index, size)
    effects.moved_bytes += size + _ENTRY_COST_BYTES * len(entries)
    group.wants_trim = True
    _note_applied(group, effects)


def _note_applied(group: Group, effects: Effects) -> None:
    # A group's Readys of one step come one after another.
    if not effects.applied or effects.applied[-1] != group.meta.group_id:
        effects.applied.append(group.meta.group_id)


def _is_command(entry: Entry) -> bool:
    """Tells whether an entry is the machine's: it knows of no other, and has no say after one."""
    return entry.type is EntryType.NORMAL and bool(entry.data)


def _apply_one(group: Group, entry: Entry, batch: WriteBatch) -> object:
    if entry.type is EntryType.CONF_CHANGE:
        group.conf_state = group.raw.apply_conf_change(ConfChange.decode(bytes(entry.data)))
        return group.conf_state
    if not _is_command(entry):
        return None
    try:
        return group.machine.apply(entry, batch)
    except Exception as error:
        raise MachineFailedError(f"applying entry {entry.index}: {error!r}") from error


def _store_checkpoint(group: Group, entry: Entry, effects: Effects) -> None:
    if group.draft is not None:
        # The machine takes it for granted when it names the next one.
        _write_draft(group, group.draft, effects, None)
    data, size = group.machine.snapshot(), group.base_part_bytes_max
    wanted = frozenset((group.machine.trim_index(), *group.machine.trim_targets()))
    log_bytes = group.storage.applied_log_bytes
    if len(data) <= size:
        checkpoint = Checkpoint(entry.index, entry.term, group.conf_state, data)
        _add_checkpoint(group, Draft(checkpoint, log_bytes, wanted, deque()), effects)
        return
    parts = [data[at : at + size] for at in range(0, len(data), size)]
    sums = tuple([crc32c(part) for part in parts])
    checkpoint = Checkpoint(entry.index, entry.term, group.conf_state, b"", sums)
    group.draft = Draft(checkpoint, log_bytes, wanted, deque(enumerate(parts)))


def _write_draft(group: Group, draft: Draft, effects: Effects, bytes_max: int | None) -> None:
    """Writes as many parts as the batch has room for, and behind the last one the checkpoint."""
    batch, index = effects.batch, draft.checkpoint.index
    while draft.parts and (bytes_max is None or batch.size_bytes < bytes_max):
        number, part = draft.parts.popleft()
        group.storage.put_part(index, number, part, batch)
        effects.must_sync = True  # bit by bit, for what shares the disk
    if not draft.parts:
        group.draft = None
        _add_checkpoint(group, draft, effects)


def _add_checkpoint(group: Group, draft: Draft, effects: Effects) -> None:
    checkpoint = draft.checkpoint
    group.storage.add_checkpoint(checkpoint, draft.log_bytes, draft.wanted, effects.batch)
    group.checkpoints_in_flight.append((effects.number, checkpoint.index))
    effects.must_sync = True


def _trim(group: Group, batch: WriteBatch) -> None:
    """Lets the log go up to the last durable checkpoint that the machine allows (S1, S4)."""
    if not group.wants_trim or group.base_readers:
        return
    group.wants_trim = False
    log = group.storage
    allowed = min(group.machine.trim_index(), group.durable_checkpoint)
    if allowed <= log.base.index:
        return
    target = log.checkpoint_at_or_below(allowed)
    if target > log.base.index:
        log.trim(target, batch)


def _complete(group: Group, entry: Entry, result: object, holders: int, effects: Effects) -> None:
    for settled in group.proposals.applied(entry):
        if settled.lost:
            _lose(group, (settled,), effects)
        else:
            effects.completions.append(
                Completion(
                    settled.token, group.meta.group_id, settled.entry, result, replicas=holders
                )
            )


def _lose(group: Group, settled: Iterable[Settled], effects: Effects) -> None:
    for one in settled:
        effects.completions.append(Completion(one.token, group.meta.group_id, one.entry, lost=True))


def _drop(group: Group, dropped: Dropped, effects: Effects) -> None:
    if dropped.kind is DropKind.PROPOSALS:
        _lose(group, group.proposals.dropped(dropped.term, dropped.index), effects)
    else:
        lose_reads(group, group.reads.dropped(dropped.context), effects)


def _announce(group: Group, effects: Effects) -> None:
    now = (group.role, group.leader_replica, group.term, group.ready)
    if now != group.announced:
        group.announced = now
        effects.roles.append(RoleChange(group.meta.group_id, *now))


def _envelopes(group: Group, messages: list[Message]) -> list[Envelope]:
    group_id, own = group.meta.group_id, group.meta.replica_id
    # Nodes make and elect the replicas of a topic when they apply it: all at nearly one time.
    prompt = group.meta.kind is GroupKind.METADATA
    return [Envelope(group_id, own, message.to, message, prompt) for message in messages]
