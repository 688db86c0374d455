"""The replicas of a node: how they are born, found again, shut out and buried.

Rules:

- A birth record goes to the disk, synced, with everything that the replica starts from, in one
  batch, before the replica can promise anything (safety S10).
- On a store that was cut at its tail a replica of a group that could have been here before is born
  in doubt: its birth may have been cut off, with all that it promised (S8, S10; `boot`).
- A first member starts from a checkpoint as of index 1, term 1, with the group's first
  configuration. A later replica starts from nothing and is sent a base by its leader (S2).
- A removed replica leaves a tombstone; its id and every lower one of this node in the group are
  dead for good (known bug 22).
- What a crash left of a large base goes when its group is opened (`log_storage`).
- A damaged group is quarantined: kept on disk, never stepped, its messages dropped (S5, S9). What
  may have broken its promises while it worked holds for later starts as well (`quarantine`). It
  goes when it is removed, or when a replica with a higher id takes its place.
- On a store that was cut a replica is in doubt even if this start cannot open it: the next one may.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

from rakit.multiraft import boot, keys, quarantine
from rakit.multiraft.checkpoint import Checkpoint
from rakit.multiraft.driver_config import DriverConfig
from rakit.multiraft.errors import GroupRefusedError, MachineFailedError, StoreCorruptError
from rakit.multiraft.group import Group
from rakit.multiraft.kv import KeyValue, WriteBatch
from rakit.multiraft.loading import load_birth, load_group, look_up, owner_of, take_census
from rakit.multiraft.log_storage import GroupLog
from rakit.multiraft.machine import ID_MAX, GroupMeta, MachineFactory, StateMachine, node_of
from rakit.multiraft.quarantine import Quarantined
from rakit.multiraft.read_ahead import ReadAhead
from rakit.multiraft.records import BirthRecord, encode_birth, encode_tombstone
from rakit.multiraft.tail_cache import TailCache
from rakit.raft import Config, ConfState, HardState, RawNode, ReplicaFatalError

#: Where a group's log begins: the checkpoint that its first members are born with.
BIRTH_INDEX = 1
BIRTH_TERM = 1


class Roster:
    """The table of replicas, and the only place that makes and unmakes them."""

    def __init__(
        self,
        config: DriverConfig,
        node_id: int,
        disk: KeyValue,
        factory: MachineFactory,
        rng: random.Random,
    ) -> None:
        self._config = config
        self._node_id = node_id
        self._disk = disk
        self._factory = factory
        self._rng = rng
        self._cache = TailCache(
            config.tail_cache_bytes_max,
            config.tail_cache_appends_max,
            config.tail_cache_needed_bytes_max,
        )
        self._ahead = ReadAhead(config.read_ahead_bytes_max)
        self._tombstones: dict[int, int] = {}
        #: Whether the census may have missed a group, for damage.
        self._census_is_whole = True
        #: Groups whose rows are known whatever the census has missed.
        self._looked_up: set[int] = set()
        self._loaded = False
        #: Groups below this id are born in doubt.
        self._births_doubted_below = 0
        #: No group from this id on existed when this start began.
        self._new_from = ID_MAX + 1
        self.groups: dict[int, Group] = {}
        self.quarantined: dict[int, Quarantined] = {}

    @property
    def tail_cache_bytes(self) -> int:
        """Memory that the recent entries of every group take now."""
        return self._cache.size_bytes

    def load(self, batch: WriteBatch) -> Iterator[None]:
        """Opens every group of the store, in steps, and quarantines the damaged ones."""
        assert not self._loaded, "a store is loaded once"
        self._loaded = True
        cut = self._config.doubtful
        self._births_doubted_below = boot.births_doubted_below(self._disk, batch, doubtful=cut)
        census = yield from take_census(self._disk)
        self._tombstones = census.tombstones
        self._census_is_whole = census.whole
        for group_id in census.group_ids:
            yield from self._load_one(group_id, batch)
            group = self.groups.get(group_id)
            if group is not None and group_id in census.in_parts:
                group.storage.sweep_parts(batch)
            yield

    def _load_one(self, group_id: int, batch: WriteBatch) -> Iterator[None]:
        if self._config.doubtful:
            boot.mark_doubtful(group_id, batch)
        try:
            if (shut_out := self._noted(group_id)) is not None:
                self.quarantined[group_id] = shut_out
                return
            birth = load_birth(self._disk, group_id)
            found = yield from load_group(
                self._disk, birth, (self._cache, self._ahead), self._factory
            )
            try:
                doubtful = self._config.doubtful or boot.is_doubtful(self._disk, group_id)
                self._add(found.meta, found.machine, found.log, doubtful=doubtful)
            except Exception:
                found.log.close()
                raise
        except (StoreCorruptError, MachineFailedError, ReplicaFatalError) as error:
            replica = owner_of(self._disk, group_id)
            self.quarantined[group_id] = Quarantined(
                replica,
                str(error),
                for_good=quarantine.is_for_good(error),
                at_fault=quarantine.is_at_fault(error),
            )

    def _noted(self, group_id: int) -> Quarantined | None:
        """Who was shut out before; of an unreadable row nobody knows whether it was at fault."""
        try:
            return quarantine.noted(self._disk, group_id)
        except StoreCorruptError as error:
            for_good = quarantine.is_for_good(error)
            return Quarantined(owner_of(self._disk, group_id), str(error), for_good, at_fault=False)

    def trust_births_from(self, group_id: int, batch: WriteBatch) -> None:
        """Takes in that no group from this id on existed when this start began (see `boot`)."""
        self._new_from = group_id
        if self._births_doubted_below == boot.EVERY_BIRTH:
            self._births_doubted_below = group_id
            boot.trust_births_from(group_id, batch)

    def create(self, meta: GroupMeta, conf: ConfState | None, batch: WriteBatch) -> Group:
        """Makes a replica; raises `GroupRefusedError` where its id or its group is not free."""
        assert self._loaded, "groups are created after the store was loaded"
        assert node_of(meta.replica_id) == self._node_id, "the replica belongs to another node"
        self._make_way(meta, batch)
        log = GroupLog(meta.group_id, meta.replica_id, self._disk, self._cache, self._ahead)
        machine = self._factory(meta)
        batch.put(
            keys.birth(meta.group_id), encode_birth(BirthRecord(meta, initial=conf is not None))
        )
        if conf is None:
            machine.restore(b"", 0)
        else:
            assert meta.replica_id in conf, "a first member belongs to the first configuration"
            log.install(Checkpoint(BIRTH_INDEX, BIRTH_TERM, conf, b""), batch)
            log.set_hard_state(HardState(BIRTH_TERM, 0, BIRTH_INDEX), batch)
            machine.restore(b"", BIRTH_INDEX)
        doubtful = meta.group_id < self._births_doubted_below
        if doubtful:
            boot.mark_doubtful(meta.group_id, batch)
        return self._add(meta, machine, log, doubtful=doubtful)

    def _make_way(self, meta: GroupMeta, batch: WriteBatch) -> None:
        """Clears away the damaged replica that this one replaces; raises if it must not be."""
        group_id, replica = meta.group_id, meta.replica_id
        group = self.groups.get(group_id)
        if group is not None:
            raise GroupRefusedError(
                f"group {group_id} has replica {group.meta.replica_id} on this node"
            )
        if not self._census_is_whole and group_id < self._new_from:
            self._look_closer(group_id)
        dead = self._tombstones.get(group_id, 0)
        if dead == ID_MAX:
            raise GroupRefusedError(
                f"the tombstone of group {group_id} cannot be read: nobody knows which of its"
                " replicas are dead"
            )
        if replica <= dead:
            raise GroupRefusedError(
                f"replica {replica} of group {group_id} was removed from this node"
            )
        shut_out = self.quarantined.get(group_id)
        if shut_out is None:
            return
        if not 0 < shut_out.replica_id < replica:
            raise GroupRefusedError(
                f"replica {shut_out.replica_id or 'unknown'} of group {group_id} is shut out on"
                f" this node: {shut_out.reason}"
            )
        self.remove(group_id, batch)

    def _look_closer(self, group_id: int) -> None:
        """Finds what damage hid from the census of one group.

        A tombstone tells of earlier replicas only: a later one may be here all the same.
        """
        if group_id in self._looked_up or group_id in self.quarantined:
            return
        try:
            is_here, dead = look_up(self._disk, group_id)
        except StoreCorruptError as error:
            self.quarantined[group_id] = Quarantined(0, str(error), quarantine.is_for_good(error))
            return
        self._looked_up.add(group_id)
        self._tombstones[group_id] = max(dead, self._tombstones.get(group_id, 0))
        if is_here:
            reason = "damage to the store hid this group at the start"
            owner = owner_of(self._disk, group_id)
            self.quarantined[group_id] = Quarantined(owner, reason, for_good=False)

    def remove(self, group_id: int, batch: WriteBatch) -> Group | None:
        """Buries a replica and wipes its data; returns it if it was sound."""
        group = self.groups.pop(group_id, None)
        shut_out = self.quarantined.pop(group_id, None)
        if group is None and shut_out is None:
            return None
        replica = group.meta.replica_id if group else shut_out.replica_id if shut_out else 0
        # A replica that is here has a higher id than all that died before it.
        dead = replica or self._tombstones.get(group_id, 0)
        if replica:
            # The disk still shows its rows until the batch is written.
            self._looked_up.add(group_id)
        if dead:
            self._tombstones[group_id] = dead
            batch.put(keys.tombstone(group_id), encode_tombstone(group_id, dead))
        for prefix in (keys.ENTRY, keys.CHECKPOINT, keys.POSITION, keys.BASE_PART):
            batch.delete_range(*keys.group_range(prefix, group_id))
        batch.delete(keys.hard_state(group_id))
        batch.delete(keys.birth(group_id))
        boot.clear_doubt(group_id, batch)
        quarantine.forget(group_id, batch)
        if group is not None:
            group.storage.close()
        return group

    def shut_out(
        self, group: Group, reason: str, batch: WriteBatch, *, for_good: bool, at_fault: bool
    ) -> Quarantined:
        """Moves a replica into quarantine, for this start or for good; its data stays as it is."""
        group_id = group.meta.group_id
        del self.groups[group_id]
        shut_out = Quarantined(group.meta.replica_id, reason, for_good, at_fault)
        self.quarantined[group_id] = shut_out
        if for_good:
            quarantine.note(group_id, shut_out, batch)
        group.storage.close()
        return shut_out

    def _add(
        self, meta: GroupMeta, machine: StateMachine, log: GroupLog, *, doubtful: bool
    ) -> Group:
        config = self._config
        core = Config(
            id=meta.replica_id,
            rng=self._rng,
            applied=log.latest.index,
            election_tick=config.election_ticks,
            heartbeat_tick=config.heartbeat_ticks,
            max_size_per_msg_bytes=config.message_bytes_max,
            max_inflight_messages=config.inflight_messages_max,
            max_inflight_bytes=config.inflight_bytes_max,
            max_uncommitted_bytes=config.uncommitted_bytes_max,
            max_sent_bytes_per_ready=config.send_bytes_max,
            max_committed_bytes_per_ready=config.apply_bytes_max,
            max_committed_entries_per_ready=config.apply_count_max,
            max_pending_reads=config.reads_count_max,
            boot=config.boot,
            doubtful=doubtful,
            tracer=config.tracer(meta.group_id) if config.tracer is not None else None,
        )
        group = Group(meta, machine, log, RawNode(core, log), config.base_part_bytes_max)
        group.doubtful = doubtful
        self.groups[meta.group_id] = group
        return group
