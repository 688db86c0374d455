"""Which replicas of a node are awake, which have something to do, and what waits to be told.

The driver's inputs meet here: each marks groups as dirty (they may have a Ready), wakes quiet ones,
or leaves something for the next effects beside the Readys. It is also where a failure of one group
is kept from the others: `guarded` shuts out the group that fails, and everyone who waits for it is
told (safety S9).

Invariants:

- `awake` holds exactly the working groups that are not quiet.
- A dirty group is awake, or is a quiet one with nothing but probes to send.
- Groups have their turns in laps: whoever was dirty when a lap began has one turn in it, however
  many steps that takes; whoever becomes dirty meanwhile comes in the next one. Nobody starves.
- Time passes for a group when it is looked at: `ticked` says how far its core has come. A tick
  visits only the groups in which it does something by the calendar; whatever else is done to an
  awake group comes after the ticks that it lacks. `due_tick` is never later than the first tick
  that matters, but for groups that have yet to have their turn.
- `farewells` leave behind everything else of their step: a heartbeat after one would undo it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from contextlib import suppress

from rakit.multiraft import farewell, quarantine
from rakit.multiraft.effects import Effects, Envelope, RoleChange
from rakit.multiraft.errors import MachineFailedError, StoreCorruptError
from rakit.multiraft.group import NOBODY, Group
from rakit.multiraft.roster import Roster
from rakit.multiraft.stepping import give_up
from rakit.raft import (
    ConfChangeInvalidError,
    MalformedConfChangeError,
    ReplicaFatalError,
    Role,
)

#: What shuts one group out and leaves the others alone.
GROUP_FATAL = (
    ReplicaFatalError,
    StoreCorruptError,
    MachineFailedError,
    MalformedConfChangeError,
    ConfChangeInvalidError,
)


class Floor:
    """The sets that a step works on."""

    def __init__(self, roster: Roster) -> None:
        self.roster = roster
        #: The ticks so far.
        self.now = 0
        #: The groups that a tick may matter to; what was planned anew is passed over.
        self._calendar: dict[int, list[Group]] = {}
        self.awake: dict[int, Group] = {}
        self.dirty: dict[int, Group] = {}
        #: Who has yet to have its turn in the lap under way.
        self.lap: deque[Group] = deque()
        #: Laps that are over.
        self.laps = 0
        #: What inputs ask for beside Readys, until the next step takes it.
        self.pending = Effects(0)
        self._farewells: list[Envelope] = []

    @property
    def idle(self) -> bool:
        """Whether a step would find nothing to do."""
        return not (self.dirty or self.lap or self.pending or self._farewells)

    def group(self, group_id: int) -> Group | None:
        """Returns a working replica, or None."""
        return self.roster.groups.get(group_id)

    def enter(self, group: Group) -> None:
        """Lets a new replica take part."""
        group.ticked = group.woken_tick = self.now
        self.awake[group.meta.group_id] = self.dirty[group.meta.group_id] = group
        self.plan(group)

    def mark(self, group: Group) -> None:
        """Notes that the group may have a Ready."""
        self.dirty[group.meta.group_id] = group

    def touch(self, group: Group) -> None:
        """Notes that somebody wants something of the group."""
        group.wanted_tick = self.now
        self.stir(group)

    def stir(self, group: Group) -> None:
        """Notes that something happened around the group that it may have to act on."""
        self.wake(group)
        self.dirty[group.meta.group_id] = group

    def wake(self, group: Group) -> None:
        """Lets a quiet group be ticked again; one that is awake takes in the ticks so far."""
        if group.quiet:
            group.quiet = False
            group.ticked = group.woken_tick = self.now
            group.dead_at_rest = NOBODY
            self.awake[group.meta.group_id] = group
            self.plan(group)
        else:
            self.catch_up(group)

    def catch_up(self, group: Group) -> None:
        """Lets the ticks pass that the group has not taken in: nothing happens in them."""
        behind = self.now - group.ticked
        if behind and not group.quiet:
            group.ticked = self.now
            group.raw.pass_ticks(behind)

    def plan(self, group: Group) -> None:
        """Sees to it that the group is looked at when a tick matters to it."""
        left = 1 if len(group.reads) else group.raw.ticks_left()
        due = group.ticked + left
        # A later tick than the planned one is found out when that comes.
        if due < group.due_tick or group.due_tick <= self.now:
            self.postpone(group, max(due, self.now + 1))

    def postpone(self, group: Group, due: int) -> None:
        """Has the group looked at with that tick, instead of when it was planned to be."""
        group.due_tick = due
        self._calendar.setdefault(due, []).append(group)

    def pass_tick(self) -> list[Group]:
        """Lets a tick pass; returns the groups that it may matter to, ticked up to before it."""
        self.now = now = self.now + 1
        due: list[Group] = []
        for group in self._calendar.pop(now, ()):
            is_planned = group.due_tick == now and group.ticked < now
            if not is_planned or self.awake.get(group.meta.group_id) is not group:
                continue
            behind = now - group.ticked
            if group.raw.ticks_left() > behind and not (len(group.reads) or group.ready):
                # It was planned before a leader was heard.
                self.plan(group)
                continue
            group.raw.pass_ticks(behind - 1)
            group.ticked = now
            due.append(group)
        return due

    def rest(self, group: Group, dead: frozenset[int] = NOBODY) -> None:
        """Lets a group go quiet; `dead` are members whose sign of life wakes it."""
        group.quiet = True
        group.dead_at_rest = dead or NOBODY
        group.raw.tick_quiesced()
        del self.awake[group.meta.group_id]

    def guarded(self, group: Group, act: Callable[[], object]) -> bool:
        """Runs a call into the group; a failure that is the group's own shuts it out."""
        try:
            act()
        except GROUP_FATAL as error:
            self.fail(group, error)
            return False
        return True

    def fail(self, group: Group, error: Exception) -> None:
        """Shuts a group out for an error of its own."""
        reason = f"{type(error).__name__}: {error}"
        self.shut_out(
            group,
            reason,
            for_good=quarantine.is_for_good(error),
            at_fault=quarantine.is_at_fault(error),
        )

    def shut_out(self, group: Group, reason: str, *, for_good: bool, at_fault: bool) -> None:
        """Moves a replica into quarantine, where it stays until a restart or for good."""
        # The others go on under the leader that it followed, and this node still routes to that.
        self.leave(group, 0 if group.role is Role.LEADER else group.leader_replica)
        batch = self.pending.batch
        shut_out = self.roster.shut_out(group, reason, batch, for_good=for_good, at_fault=at_fault)
        self.pending.must_sync = self.pending.must_sync or for_good
        self.pending.quarantined.append((group.meta.group_id, shut_out))

    def leave(self, group: Group, leader_replica: int = 0) -> None:
        """Lets go of a replica: its waiters are answered, its peers told, its role ends."""
        group_id = group.meta.group_id
        self.say_farewell(group)
        give_up(group, self.pending)
        self.pending.roles.append(
            RoleChange(group_id, Role.FOLLOWER, leader_replica, group.term, ready=False)
        )
        self.awake.pop(group_id, None)
        self.dirty.pop(group_id, None)
        with suppress(ValueError):  # it may have had its turn
            self.lap.remove(group)

    def say_farewell(self, group: Group) -> None:
        """Tells the members that this leader leads no more; nothing if it does not lead."""
        self._farewells += farewell.envelopes(group)

    def take_farewells(self) -> list[Envelope]:
        """Returns the farewells that are to leave with this step."""
        taken, self._farewells = self._farewells, []
        return taken
