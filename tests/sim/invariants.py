"""The rules of Raft, checked after every step, incrementally.

Each check looks only at what the step changed, so a run of thousands of steps stays cheap. The
checks share nothing with the core's code: they read logs from disks and roles from replicas, and
keep their own record of what was committed.

- Election safety: one leader per group and term (paper, figure 3), and it was voted for by a
  quorum of every half of its configuration (5.2).
- Log matching (section 5.3): an (index, term) names one content and one predecessor's term, for
  ever.
- Committed is durable on a majority: when a replica first counts an index as committed, a quorum
  of every half of its configuration holds the entry on its synced disk, crashed voters included.
  Where members change, it may be the configuration of a step before, or one that another replica
  has applied; where a disk lost what it had synced (S8), or a replica was removed with its deleted
  group, what it once held counts for that entry.
- One change at a time (dissertation 4.1): no log holds two changes of members above its commit
  index, or its replica might count by a majority that need not meet that of the others.
- The commit rule (section 5.4.2): the commit index of a leader moves to an entry of its own term.
- State machine safety (section 5.4.3): nobody ever holds another entry as committed at the same
  index.
- Leader completeness (section 5.4): a new leader holds everything that was committed, and what is
  committed under an earlier leader while it leads is in its log already.
- Terms, commit and applied indexes never fall while a process lives.
- What a replica has applied is on its own synced disk (S13).
- Replicas that have applied the same entries have the same configuration (section 6).
- Who is told to stand holds what the leader that tells it holds (dissertation 3.10).

Votes are judged by `Votes`, what replicas write of their states by `Sameness`, and what the
entries of a partition say by the ledger, which is told of what is applied.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from rakit.multiraft import keys
from rakit.multiraft.driver import Driver
from rakit.multiraft.effects import Envelope
from rakit.multiraft.group import Group
from rakit.multiraft.kv import Op, WriteBatch
from rakit.multiraft.machine import node_of
from rakit.raft import ConfState, Role
from tests.sim.disk import Image, SimDisk
from tests.sim.ledger import Ledger
from tests.sim.records import entry_term, hard_state_of, is_conf_change, term_at
from tests.sim.sameness import Sameness
from tests.sim.violations import Invariant, ViolationError
from tests.sim.votes import Votes

#: Configurations of a group that count, beside the ones of the replica that is looked at.
_CONFS_KEPT = 2


@dataclass(slots=True)
class Seen:
    """What a replica showed last, within one life of its process."""

    term: int = 0
    commit: int = 0
    applied: int = 0
    base: int = 0
    leads_term: int = 0
    conf: ConfState | None = None


@dataclass(slots=True)
class GroupRecord:
    """What is known of one group from outside."""

    leaders: dict[int, int] = field(default_factory=dict[int, int])
    # (index, term) -> (digest of the stored row, term of the entry before it)
    rows: dict[tuple[int, int], int] = field(default_factory=dict[tuple[int, int], int])
    before: dict[tuple[int, int], int] = field(default_factory=dict[tuple[int, int], int])
    committed: dict[int, int] = field(default_factory=dict[int, int])
    committed_up_to: int = 1
    # The newest configuration that any replica has shown, and the one before it.
    confs: tuple[ConfState, ...] = ()
    # Applied index -> the configuration as of it.
    conf_at: dict[int, ConfState] = field(default_factory=dict[int, ConfState])
    # (node, index, term) of entries that were synced and lost with a tail that was cut, or with a
    # replica that was removed, or shut out and replaced.
    cut: set[tuple[int, int, int]] = field(default_factory=set[tuple[int, int, int]])


class Checker:
    """Watches every node of one world."""

    def __init__(
        self,
        disk_of: Callable[[int], SimDisk],
        driver_of: Callable[[int], Driver | None],
        ledger: Ledger,
    ) -> None:
        self.disk_of = disk_of
        self.driver_of = driver_of
        self.ledger = ledger
        self.groups: dict[int, GroupRecord] = {}
        self.seen: dict[tuple[int, int], Seen] = {}
        self.votes = Votes(disk_of)
        self.sameness = Sameness()

    def record(self, group_id: int) -> GroupRecord:
        record = self.groups.get(group_id)
        if record is None:
            record = self.groups[group_id] = GroupRecord()
        return record

    # ---------------------------------------------------------------- what is written

    def wrote(self, node_id: int, number: int, batch: WriteBatch) -> None:
        for kind, key, written in batch.ops:
            if kind != Op.PUT:
                continue
            value = bytes(written)
            if key[0] == keys.ENTRY:
                self._entry_written(node_id, key, value)
            elif key[0] == keys.HARD_STATE:
                self.votes.wrote(node_id, number, key, value)
            elif key[0] == keys.CHECKPOINT:
                self.sameness.wrote_checkpoint(node_id, key, value)
            elif key[0] == keys.POSITION:
                self.sameness.wrote_position(node_id, key, value)

    def _entry_written(self, node_id: int, key: bytes, value: bytes) -> None:
        group_id, index, term = keys.group_of(key), keys.number_of(key), entry_term(value)
        record = self.record(group_id)
        digest = hash(value)
        if record.rows.setdefault((index, term), digest) != digest:
            raise ViolationError(
                Invariant.LOG_MATCHING,
                f"group {group_id}: two entries at index {index}, term {term}",
            )
        if is_conf_change(value):
            self._one_change(node_id, group_id, index)
        previous = self.disk_of(node_id).live.rows.get(keys.entry(group_id, index - 1))
        if previous is None:
            return  # the entry before it has been trimmed, or is the checkpoint
        before = entry_term(previous)
        if record.before.setdefault((index, term), before) != before:
            raise ViolationError(
                Invariant.LOG_MATCHING,
                f"group {group_id}: the log forks below index {index}, term {term}",
            )

    def _one_change(self, node_id: int, group_id: int, index: int) -> None:
        rows = self.disk_of(node_id).live.rows
        stored = rows.get(keys.hard_state(group_id))
        commit = hard_state_of(group_id, stored).commit if stored else 0
        for other in range(commit + 1, index):
            row = rows.get(keys.entry(group_id, other))
            if row is not None and is_conf_change(row):
                raise ViolationError(
                    Invariant.ONE_CHANGE,
                    f"group {group_id}: node {node_id} holds changes of members at {other} and"
                    f" {index}, and knows {commit} as committed",
                )

    def crashed(self, node_id: int, kept: int) -> None:
        """The process has gone, with what was written after write `kept`."""
        self.votes.crashed(node_id, kept)
        for key in [key for key in self.seen if key[0] == node_id]:
            del self.seen[key]

    def cut(self, node_id: int, before: Image) -> None:
        """A disk lost what it had synced: what it held counts for what was committed by it."""
        self.votes.forgotten(node_id)
        now = self.disk_of(node_id).durable.rows
        for key, value in before.rows.items():
            if key[0] == keys.ENTRY and now.get(key) != value:
                entry = (node_id, keys.number_of(key), entry_term(value))
                self.record(keys.group_of(key)).cut.add(entry)

    def replaced(self, node_id: int, group_id: int) -> None:
        """A new replica takes the place of one that is shut out: what that held goes with it."""
        self.removed(node_id, group_id)
        self.votes.replaced(node_id, group_id)
        self.seen.pop((node_id, group_id), None)

    def removed(self, node_id: int, group_id: int) -> None:
        """A replica goes: what it held, and had told its leader of, counts all the same."""
        lo, hi = keys.group_range(keys.ENTRY, group_id)
        cut = self.record(group_id).cut
        for key, value in self.disk_of(node_id).durable.rows.items():
            if lo <= key < hi:
                cut.add((node_id, keys.number_of(key), entry_term(value)))

    # ---------------------------------------------------------------- what a node holds

    def stepped(self, node_id: int, driver: Driver) -> None:
        """The node has carried out effects; nothing else changes what is looked at here."""
        for group_id, group in driver.groups.items():
            self._group(node_id, group_id, group)

    def _group(self, node_id: int, group_id: int, group: Group) -> None:
        seen = self.seen.get((node_id, group_id))
        if seen is None:
            seen = self.seen[node_id, group_id] = Seen()
        term, commit, applied = group.term, group.commit, group.applied
        if term < seen.term or commit < seen.commit or applied < seen.applied or applied > commit:
            raise ViolationError(
                Invariant.MONOTONE,
                f"group {group_id}: node {node_id} went from {seen} to term {term},"
                f" commit {commit}, applied {applied}",
            )
        seen.term = term
        if group.conf_state is not seen.conf:
            self._note_conf(group_id, group.conf_state)
        if commit > seen.commit:
            self._commit_grew(node_id, group_id, group, max(seen.commit, 1), commit)
            seen.commit = commit
        seen.conf = group.conf_state
        if applied > seen.applied:
            seen.applied = applied
            self._applied(node_id, group_id, group)
            self.ledger.applied(group, self.disk_of(node_id))
        base = group.storage.base.index
        if base != seen.base:
            seen.base = base
            self.ledger.begins_after(node_id, group_id, base)
        if group.role is Role.LEADER and seen.leads_term != term:
            seen.leads_term = term
            self._new_leader(group_id, group, term)

    def _applied(self, node_id: int, group_id: int, group: Group) -> None:
        index, conf = group.applied, group.conf_state
        known = self.record(group_id).conf_at.setdefault(index, conf)
        if known != conf:
            raise ViolationError(
                Invariant.SAME_CONFIGURATION,
                f"group {group_id}: as of entry {index} node {node_id} has {conf},"
                f" another one {known}",
            )
        if index <= group.storage.base.index:
            return  # a base: its entries are not here
        row = self.disk_of(node_id).durable.rows.get(keys.entry(group_id, index))
        if row is None or entry_term(row) != group.storage.term(index):
            raise ViolationError(
                Invariant.DURABLE_APPLY,
                f"group {group_id}: node {node_id} has applied entry {index}, its disk has not",
            )

    def _note_conf(self, group_id: int, conf: ConfState) -> None:
        record = self.record(group_id)
        if conf not in record.confs:
            record.confs = (*record.confs[-_CONFS_KEPT:], conf)

    def _new_leader(self, group_id: int, group: Group, term: int) -> None:
        record = self.record(group_id)
        replica = group.meta.replica_id
        if record.leaders.setdefault(term, replica) != replica:
            raise ViolationError(
                Invariant.ELECTION_SAFETY,
                f"group {group_id}: {record.leaders[term]:x} and {replica:x}"
                f" both lead in term {term}",
            )
        self._elected(group_id, group, term)
        last = record.committed_up_to
        while record.committed.get(last, 0) > term:
            # It was elected in an earlier term, and has only now heard of it.
            last -= 1
        if last in record.committed:
            self._holds_committed(group_id, group, last, record.committed[last])

    def _elected(self, group_id: int, leader: Group, term: int) -> None:
        voters = self.votes.for_whom(group_id, term, leader.meta.replica_id)
        confs = (leader.conf_state, *self.record(group_id).confs)
        if not any(_is_quorum(conf, lambda one: one in voters) for conf in confs):
            raise ViolationError(
                Invariant.ELECTION_SAFETY,
                f"group {group_id}: {leader.meta.replica_id:x} leads in term {term}, by the votes"
                f" of {[f'{one:x}' for one in sorted(voters)]} under {leader.conf_state}",
            )

    def told_to_stand(self, node_id: int, envelope: Envelope) -> None:
        """A leader's last word before it is replaced (dissertation 3.10)."""
        driver = self.driver_of(node_id)
        assert driver is not None, "a node that is down sends nothing"
        group_id, target = envelope.group_id, envelope.to_replica
        leader = driver.groups[group_id]
        last = leader.storage.last_index()
        if last == leader.storage.base.index:
            return  # what it would have to hold is not kept anywhere
        term = leader.storage.term(last)
        held = self._holds(target, group_id, last, term) or self._passed(
            target, group_id, last, term
        )
        # The word was said before what the same step applied, and may leave all the same.
        confs = (leader.conf_state, self.seen[node_id, group_id].conf)
        if held and any(conf is not None and target in conf.voters for conf in confs):
            return
        raise ViolationError(
            Invariant.HAND_OVER,
            f"group {group_id}: {target:x} is told to stand and lacks ({term}, {last}),"
            f" or does not vote under {leader.conf_state}",
        )

    def _passed(self, replica: int, group_id: int, index: int, term: int) -> bool:
        """Whether the entry is committed and lies in a checkpoint of the replica.

        A leader that stood still may know of nothing that came after it.
        """
        lo, hi = keys.group_range(keys.CHECKPOINT, group_id)
        rows = self.disk_of(node_of(replica)).durable.rows
        return self.record(group_id).committed.get(index) == term and any(
            lo <= key < hi and keys.number_of(key) >= index for key in rows
        )

    def _holds_committed(self, group_id: int, leader: Group, index: int, term: int) -> None:
        end = leader.storage.last_index()
        if end < index or term_at(leader, index) not in {term, None}:
            raise ViolationError(
                Invariant.LEADER_COMPLETENESS,
                f"group {group_id}: leader {leader.meta.replica_id:x} of term {leader.term} lacks"
                f" ({term}, {index}), which is committed; its log ends at {end}",
            )

    def _commit_grew(self, node_id: int, group_id: int, group: Group, old: int, new: int) -> None:
        record = self.record(group_id)
        seen = self.seen[node_id, group_id]
        if seen.leads_term == group.term and term_at(group, new) not in {group.term, None}:
            raise ViolationError(
                Invariant.COMMIT_RULE,
                f"group {group_id}: node {node_id} leads in term {group.term} and counts"
                f" ({term_at(group, new)}, {new}) as committed",
            )
        for index in range(old + 1, new + 1):
            term = term_at(group, index)
            if term is None:
                continue  # behind a base that was installed: judged when it was committed
            known = record.committed.get(index)
            if known is None:
                self._durable_on_a_majority(node_id, group_id, group, index, term)
                self._later_leaders_hold(group_id, index, term, group.term)
                record.committed[index] = term
                record.committed_up_to = max(record.committed_up_to, index)
            elif known != term:
                raise ViolationError(
                    Invariant.STATE_MACHINE_SAFETY,
                    f"group {group_id}: node {node_id} commits ({term}, {index}),"
                    f" but term {known} is committed there",
                )

    def _later_leaders_hold(self, group_id: int, index: int, term: int, committed_in: int) -> None:
        """Leaders after the one that commits; one of a term between does not know of it yet."""
        for later, replica in self.record(group_id).leaders.items():
            driver = self.driver_of(node_of(replica)) if later > committed_in else None
            leader = driver.groups.get(group_id) if driver is not None else None
            if leader is not None and (leader.role, leader.term) == (Role.LEADER, later):
                self._holds_committed(group_id, leader, index, term)

    def _durable_on_a_majority(
        self, node_id: int, group_id: int, group: Group, index: int, term: int
    ) -> None:
        before = self.seen[node_id, group_id].conf
        confs = (group.conf_state, *((before,) if before else ()), *self.record(group_id).confs)
        if not any(self._has_quorum(conf, group_id, index, term) for conf in confs):
            everybody = sorted({one for conf in confs for one in (*conf.voters,)})
            holders = [one for one in everybody if self._holds(one, group_id, index, term)]
            raise ViolationError(
                Invariant.DURABLE_COMMIT,
                f"group {group_id}: ({term}, {index}) counts as committed, "
                f"durable on {[node_of(one) for one in holders]} under {confs[0]}",
            )

    def _has_quorum(self, conf: ConfState, group_id: int, index: int, term: int) -> bool:
        return _is_quorum(conf, lambda one: self._holds(one, group_id, index, term))

    def _holds(self, replica: int, group_id: int, index: int, term: int) -> bool:
        image: Image = self.disk_of(node_of(replica)).durable
        row = image.rows.get(keys.entry(group_id, index))
        if row is not None and entry_term(row) == term:
            return True
        return (node_of(replica), index, term) in self.record(group_id).cut


def _is_quorum(conf: ConfState, counts: Callable[[int], bool]) -> bool:
    """Tells whether more than half of every half of a configuration counts."""
    return bool(conf.voters) and all(
        2 * sum(map(counts, half)) > len(half)
        for half in (conf.voters, conf.voters_outgoing)
        if half
    )
