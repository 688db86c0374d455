"""One replica on this node: what others may read of it, and what the driver keeps beside the core.

The public half (`meta` to `status`) is for readers: partitions, services, tools. They never change
anything here. The rest belongs to the driver's modules.

Invariants:

- `applied <= storage.hard_state.commit <= storage.last_index()`.
- `ready` implies that the replica leads and has applied an entry of its own term (safety S14).
- `flights` ascend by effects number and by Ready number, and complete in that order (S18).
- A quiet replica has nothing under way: no flight, no proposal, no read.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

from rakit.multiraft.checkpoint import Checkpoint
from rakit.multiraft.log_storage import GroupLog
from rakit.multiraft.machine import GroupMeta, StateMachine
from rakit.multiraft.waiters import Proposals, Reads
from rakit.raft import Entry, HardState, Message, RawNode, Role, Status

#: The one empty set of replicas; each that is made anew takes 200 bytes.
NOBODY: Final[frozenset[int]] = frozenset()


@dataclass(frozen=True, slots=True)
class Flight:
    """A Ready on its way to the disk."""

    #: Number of the effects whose batch ends it.
    number: int
    ready_number: int
    must_sync: bool
    #: What may leave once it is durable.
    messages: list[Message]


@dataclass(slots=True)
class Remainder:
    """A Ready whose entries did not fit into one batch: what is still to be written."""

    entries: deque[Entry]
    hard_state: HardState | None
    ready_number: int
    messages: list[Message]


@dataclass(slots=True)
class Draft:
    """A large checkpoint on its way to the disk: its parts first, then its own row."""

    checkpoint: Checkpoint
    #: Stored entry bytes up to it.
    log_bytes: int
    #: What the machine may have the log cut at, as of it.
    wanted: frozenset[int]
    #: The parts that are still to be written, with their numbers.
    parts: deque[tuple[int, bytes]]


class Group:
    """A working replica. A damaged one is not a `Group`: it is in the driver's quarantine."""

    __slots__ = (
        "announced",
        "applied",
        "base_part_bytes_max",
        "base_readers",
        "checkpoints_in_flight",
        "conf_state",
        "dead_at_rest",
        "doubtful",
        "draft",
        "due_tick",
        "durable_checkpoint",
        "flights",
        "installing",
        "leader_replica",
        "machine",
        "meta",
        "proposals",
        "quiet",
        "raw",
        "reads",
        "ready",
        "remainder",
        "role",
        "storage",
        "term",
        "ticked",
        "used",
        "wanted_tick",
        "wants_trim",
        "woken_tick",
    )

    def __init__(
        self,
        meta: GroupMeta,
        machine: StateMachine,
        storage: GroupLog,
        raw: RawNode,
        base_part_bytes_max: int,
    ) -> None:
        self.meta = meta
        self.machine = machine
        self.storage = storage
        self.raw = raw
        hard_state, self.conf_state = storage.initial_state()
        self.term = hard_state.term
        self.role: Role = Role.FOLLOWER
        #: The leader as far as known; 0 if not.
        self.leader_replica = 0
        #: Produce may begin (safety S14).
        self.ready = False
        self.applied = storage.latest.index

        self.proposals = Proposals()
        self.reads = Reads()
        self.flights: list[Flight] = []
        self.remainder: Remainder | None = None
        #: A state that is larger than this is stored and sent in parts of this size.
        self.base_part_bytes_max = base_part_bytes_max
        self.draft: Draft | None = None
        #: Replicas that are fetching the base of this log, which therefore stays (`bases`).
        self.base_readers = NOBODY
        #: The core was given a base that is to be installed with its next Ready.
        self.installing = False
        #: (effects number, index) of checkpoints that may not be durable yet.
        self.checkpoints_in_flight: list[tuple[int, int]] = []
        self.durable_checkpoint = storage.latest.index
        #: A checkpoint became durable or the machine moved: ask the machine about trimming.
        self.wants_trim = True
        #: The replica cannot vouch for what it promised before its last start (safety S8).
        self.doubtful = False
        #: Records were applied since the last look.
        self.used = False
        #: When anybody last wanted anything of this replica, and when it last began to be ticked.
        self.wanted_tick = self.woken_tick = 0
        #: Up to when its core has been ticked, and when the next tick that matters is due.
        self.ticked = self.due_tick = 0
        self.quiet = False
        #: Members that the leader took for dead when it went quiet.
        self.dead_at_rest = NOBODY
        #: (role, leader, term, ready) as last announced.
        self.announced: tuple[Role, int, int, bool] = (Role.FOLLOWER, 0, self.term, False)
        storage.keep(self._needed_from)

    def _needed_from(self, first: int) -> int:
        """Index of the first entry from `first` on that is still to be applied, or to be sent."""
        return min(max(self.applied + 1, first), self.raw.unsent_from(first))

    @property
    def commit(self) -> int:
        """Index up to which the log is known to be committed."""
        return self.storage.hard_state.commit

    @property
    def pending_count(self) -> int:
        """How many proposals of this leadership are neither applied nor lost."""
        return len(self.proposals)

    def status(self) -> Status:
        """Returns the core's view: progress of the members, if this replica leads."""
        return self.raw.status()

    def waits_for(self, number: int) -> bool:
        """Tells whether something of this replica completes with the sync of batch `number`."""
        flights, checkpoints = self.flights, self.checkpoints_in_flight
        return bool(
            (flights and flights[-1].number == number)
            or (checkpoints and checkpoints[-1][0] == number)
        )

    def holders(self, index: int) -> int:
        """Counts the members known to have synced everything up to the committed `index`.

        A quorum at least, since it is committed; a replica that leads no more knows only that.
        """
        return max(self.raw.holder_count(index), len(self.conf_state.voters) // 2 + 1)
