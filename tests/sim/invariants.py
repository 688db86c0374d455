"""The rules of Raft, checked after every step, incrementally.

Each check looks only at what the step changed, so a run of thousands of steps stays cheap. The
checks share nothing with the core's code: they read logs from disks and roles from replicas, and
keep their own record of what was committed.

- Election safety: one leader per group and term (paper, figure 3).
- One vote per term, also across restarts (section 5.2): judged by the grants that leave a node.
- Log matching (section 5.3): an (index, term) names one content and one predecessor's term, for
  ever.
- Committed is durable on a majority: when a replica first counts an index as committed, a quorum
  of every half of its configuration holds the entry on its synced disk, crashed voters included.
  Where members change, it may be the configuration of a step before, or one that another replica
  has applied; where a disk lost what it had synced (S8), what it once held counts for that entry.
- State machine safety (section 5.4.3): nobody ever holds another entry as committed at the same
  index.
- Leader completeness (section 5.4): a new leader holds everything that was committed.
- A replica that was shut out says nothing and does nothing any more, also after restarts (S9).
- Terms never fall, not even across a restart; commit and applied indexes never fall while a
  process lives.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from rakit.multiraft import keys
from rakit.multiraft.driver import Driver
from rakit.multiraft.effects import Envelope
from rakit.multiraft.group import Group
from rakit.multiraft.kv import Op, WriteBatch
from rakit.multiraft.machine import node_of
from rakit.raft import ConfState, MessageType, Role
from tests.sim.disk import Image, SimDisk
from tests.sim.records import entry_term, hard_state_of, term_at

#: Configurations of a group that count, beside the ones of the replica that is looked at.
_CONFS_KEPT = 2


class ViolationError(AssertionError):
    """A promise was broken."""


@dataclass(slots=True)
class Seen:
    """What a replica showed last, within one life of its process."""

    term: int = 0
    commit: int = 0
    applied: int = 0
    leads_term: int = 0
    conf: ConfState | None = None


@dataclass(slots=True)
class GroupRecord:
    """What is known of one group from outside."""

    leaders: dict[int, int] = field(default_factory=dict[int, int])
    grants: dict[tuple[int, int], int] = field(default_factory=dict[tuple[int, int], int])
    # (index, term) -> (digest of the stored row, term of the entry before it)
    rows: dict[tuple[int, int], int] = field(default_factory=dict[tuple[int, int], int])
    before: dict[tuple[int, int], int] = field(default_factory=dict[tuple[int, int], int])
    committed: dict[int, int] = field(default_factory=dict[int, int])
    committed_up_to: int = 1
    durable_terms: dict[int, int] = field(default_factory=dict[int, int])
    # The newest configuration that any replica has shown, and the one before it.
    confs: tuple[ConfState, ...] = ()
    # (node, index, term) of entries that were synced and lost with a tail that was cut, or with a
    # replica that was shut out and replaced.
    cut: set[tuple[int, int, int]] = field(default_factory=set[tuple[int, int, int]])


class Checker:
    """Watches every node of one world."""

    def __init__(self, disk_of: Callable[[int], SimDisk]) -> None:
        self.disk_of = disk_of
        self.groups: dict[int, GroupRecord] = {}
        self.seen: dict[tuple[int, int], Seen] = {}
        # (group, replica) of those whose quarantine is durable.
        self.shut_out: set[tuple[int, int]] = set()

    def record(self, group_id: int) -> GroupRecord:
        record = self.groups.get(group_id)
        if record is None:
            record = self.groups[group_id] = GroupRecord()
        return record

    def restarted(self, node_id: int) -> None:
        for key in [key for key in self.seen if key[0] == node_id]:
            del self.seen[key]

    # ---------------------------------------------------------------- what leaves a node

    def sent(self, envelopes: Iterable[Envelope]) -> None:
        for envelope in envelopes:
            message = envelope.message
            if (envelope.group_id, envelope.from_replica) in self.shut_out:
                raise ViolationError(
                    f"group {envelope.group_id}: replica {envelope.from_replica:x} is shut out and"
                    f" sends {message.type.name}"
                )
            if message.type is not MessageType.VOTE_RESP or message.reject:
                continue
            grants = self.record(envelope.group_id).grants
            key = (envelope.from_replica, message.term)
            if grants.setdefault(key, envelope.to_replica) != envelope.to_replica:
                raise ViolationError(
                    f"group {envelope.group_id}: replica {envelope.from_replica:x} voted"
                    f" twice in term {message.term}"
                )

    # ---------------------------------------------------------------- what is written

    def wrote(self, node_id: int, batch: WriteBatch) -> None:
        for kind, key, value in batch.ops:
            if kind != Op.PUT:
                continue
            if key[0] == keys.ENTRY:
                self._entry_written(node_id, key, value)
            elif key[0] == keys.HARD_STATE:
                self._hard_state_written(node_id, key, value)

    def _entry_written(self, node_id: int, key: bytes, value: bytes) -> None:
        group_id, index, term = keys.group_of(key), keys.number_of(key), entry_term(value)
        record = self.record(group_id)
        digest = hash(value)
        if record.rows.setdefault((index, term), digest) != digest:
            raise ViolationError(f"group {group_id}: two entries at index {index}, term {term}")
        previous = self.disk_of(node_id).live.rows.get(keys.entry(group_id, index - 1))
        if previous is None:
            return  # the entry before it has been trimmed, or is the checkpoint
        before = entry_term(previous)
        if record.before.setdefault((index, term), before) != before:
            raise ViolationError(
                f"group {group_id}: the log forks below index {index}, term {term}"
            )

    def _hard_state_written(self, node_id: int, key: bytes, value: bytes) -> None:
        group_id, term = keys.group_of(key), hard_state_of(keys.group_of(key), value).term
        terms = self.record(group_id).durable_terms
        if terms.get(node_id, 0) > term:
            raise ViolationError(
                f"group {group_id}: node {node_id} stored term {term} after {terms[node_id]}"
            )
        terms[node_id] = term

    def crashed(self, node_id: int) -> None:
        """What was written and not synced is gone, and terms may be taken back with it."""
        rows = self.disk_of(node_id).durable.rows
        for group_id, record in self.groups.items():
            stored = rows.get(keys.hard_state(group_id))
            record.durable_terms[node_id] = hard_state_of(group_id, stored).term if stored else 0

    def cut(self, node_id: int, before: Image) -> None:
        """A disk lost what it had synced: what it held counts for what was committed by it."""
        now = self.disk_of(node_id).durable.rows
        for key, value in before.rows.items():
            if key[0] == keys.ENTRY and now.get(key) != value:
                entry = (node_id, keys.number_of(key), entry_term(value))
                self.record(keys.group_of(key)).cut.add(entry)
        for record in self.groups.values():
            # Votes that it cast and forgot; it may cast them again, and they do not count then.
            for grant in [one for one in record.grants if node_of(one[0]) == node_id]:
                del record.grants[grant]

    def replaced(self, node_id: int, group_id: int) -> None:
        """A new replica takes the place of one that is shut out: what that held goes with it."""
        record = self.record(group_id)
        lo, hi = keys.group_range(keys.ENTRY, group_id)
        for key, value in self.disk_of(node_id).durable.rows.items():
            if lo <= key < hi:
                record.cut.add((node_id, keys.number_of(key), entry_term(value)))
        record.durable_terms.pop(node_id, None)
        self.seen.pop((node_id, group_id), None)

    # ---------------------------------------------------------------- what a node holds

    def stepped(self, node_id: int, driver: Driver) -> None:
        for group_id, group in driver.groups.items():
            self._group(node_id, group_id, group)

    def _group(self, node_id: int, group_id: int, group: Group) -> None:
        if (group_id, group.meta.replica_id) in self.shut_out:
            raise ViolationError(f"group {group_id}: node {node_id} has forgotten a quarantine")
        seen = self.seen.get((node_id, group_id))
        if seen is None:
            seen = self.seen[node_id, group_id] = Seen()
        term, commit, applied = group.term, group.commit, group.applied
        if term < seen.term or commit < seen.commit or applied < seen.applied:
            raise ViolationError(
                f"group {group_id}: node {node_id} went back from {seen}"
                f" to {term}, {commit}, {applied}"
            )
        if applied > commit:
            raise ViolationError(
                f"group {group_id}: node {node_id} applied {applied}, committed {commit}"
            )
        seen.term = term
        if group.conf_state is not seen.conf:
            self._note_conf(group_id, group.conf_state)
        if commit > seen.commit:
            self._commit_grew(node_id, group_id, group, max(seen.commit, 1), commit)
            seen.commit = commit
        seen.conf = group.conf_state
        seen.applied = applied
        if group.role is Role.LEADER and seen.leads_term != term:
            seen.leads_term = term
            self._new_leader(group_id, group, term)

    def _note_conf(self, group_id: int, conf: ConfState) -> None:
        record = self.record(group_id)
        if conf not in record.confs:
            record.confs = (*record.confs[-_CONFS_KEPT:], conf)

    def _new_leader(self, group_id: int, group: Group, term: int) -> None:
        record = self.record(group_id)
        replica = group.meta.replica_id
        if record.leaders.setdefault(term, replica) != replica:
            raise ViolationError(
                f"group {group_id}: {record.leaders[term]:x} and {replica:x}"
                f" both lead in term {term}"
            )
        last = record.committed_up_to
        end = group.storage.last_index()
        if end < last:
            raise ViolationError(
                f"group {group_id}: leader {replica:x} of term {term} ends at {end},"
                f" {last} is committed"
            )
        if last in record.committed and term_at(group, last) not in {record.committed[last], None}:
            raise ViolationError(
                f"group {group_id}: leader {replica:x} of term {term} lacks committed entry {last}"
            )

    def _commit_grew(self, node_id: int, group_id: int, group: Group, old: int, new: int) -> None:
        record = self.record(group_id)
        for index in range(old + 1, new + 1):
            term = term_at(group, index)
            if term is None:
                continue  # behind a base that was installed: judged when it was committed
            known = record.committed.get(index)
            if known is None:
                self._durable_on_a_majority(node_id, group_id, group, index, term)
                record.committed[index] = term
                record.committed_up_to = max(record.committed_up_to, index)
            elif known != term:
                raise ViolationError(
                    f"group {group_id}: node {node_id} commits ({term}, {index}),"
                    f" but term {known} is committed there"
                )

    def _durable_on_a_majority(
        self, node_id: int, group_id: int, group: Group, index: int, term: int
    ) -> None:
        before = self.seen[node_id, group_id].conf
        confs = (group.conf_state, *((before,) if before else ()), *self.record(group_id).confs)
        if not any(self._has_quorum(conf, group_id, index, term) for conf in confs):
            everybody = sorted({one for conf in confs for one in (*conf.voters,)})
            holders = [one for one in everybody if self._holds(one, group_id, index, term)]
            raise ViolationError(
                f"group {group_id}: ({term}, {index}) counts as committed, "
                f"durable on {[node_of(one) for one in holders]} under {confs[0]}"
            )

    def _has_quorum(self, conf: ConfState, group_id: int, index: int, term: int) -> bool:
        return bool(conf.voters) and all(
            2 * sum(self._holds(one, group_id, index, term) for one in half) > len(half)
            for half in (conf.voters, conf.voters_outgoing)
            if half
        )

    def _holds(self, replica: int, group_id: int, index: int, term: int) -> bool:
        image: Image = self.disk_of(node_of(replica)).durable
        row = image.rows.get(keys.entry(group_id, index))
        if row is not None and entry_term(row) == term:
            return True
        return (node_of(replica), index, term) in self.record(group_id).cut
