"""The receiving end of a large base: its parts are asked for, stored as they come, then installed.

A leader announces a base as it always did, by one message; where the state is large the message
holds the checksums of its parts instead. It is kept here, not given to the core, until every part
is on this disk. The core then takes it like a base that came in one piece, so nothing is seen of
one before all of it is there: until then the replica goes on with what it has.

The receiver asks, the leader only answers. So a lost part, a lost link or a busy leader cost one
time limit, what is on its way is bounded here, and a leader that has changed is asked for the rest.

Rules:

- Rule B1: a part counts if it belongs to the base that is being gathered, by index, term and
  number, was missing, and has the checksum that the announcement names.
- Rule B2: the core gets the base when the last part has been written. The write of the base itself
  follows, so whatever a crash leaves of the two, it leaves a part before what needs it.
- Rule B3: another base of a leader takes the place of the one under way. The same base announced
  again, by whomever, only tells whom to ask.
- Rule B4: what is given up is deleted: when the log has come to the base by itself, when another
  base takes its place, or when nobody has sent anything for long. What a crash leaves, the next
  start sweeps (`log_storage`).
- Rule B5: parts lie on the disk, not in memory. What one node may have on its way to this one is
  bounded by bytes, and so is the number of bases under way; others wait in their order.

Left out: what a base is good for (`follower` of the core), and who keeps it (`base_serving`).
"""

from __future__ import annotations

from functools import partial

from rakit.multiraft.checksum import crc32c
from rakit.multiraft.driver_config import DriverConfig
from rakit.multiraft.effects import Envelope
from rakit.multiraft.floor import Floor
from rakit.multiraft.group import Group
from rakit.multiraft.machine import node_of
from rakit.raft import ConfState, Message, MessageType, Role, Snapshot, StepRefusedError

#: Election periods without a part or an announcement, after which a base is given up.
_IDLE_PERIODS = 4


class Gathering:
    """One base on its way to this node.

    Invariant: every number of a part is in `missing` until the part is taken; `asked` are those of
    them that were asked for, with the tick of that.
    """

    __slots__ = ("asked", "group", "head", "missing", "touched_at", "whole_with")

    def __init__(self, group: Group, head: Message, now: int) -> None:
        self.group = group
        #: The newest announcement.
        self.head = head
        self.missing = dict.fromkeys(range(len(self.base.parts)))
        self.asked: dict[int, int] = {}
        self.touched_at = now
        #: Number of the effects that write the last part; 0 while parts are missing.
        self.whole_with = 0

    @property
    def base(self) -> Snapshot:
        """The base, without its state."""
        assert self.head.snapshot is not None, "a base was announced"
        return self.head.snapshot

    def is_of(self, base: Snapshot) -> bool:
        """Tells whether this is the base that is being gathered."""
        own = self.base
        return (own.index, own.term, own.parts) == (base.index, base.term, base.parts)

    def takes(self, part: Snapshot) -> bool:
        """Tells whether a part is one that is missing here (rule B1)."""
        own = self.base
        return (
            (part.index, part.term) == (own.index, own.term)
            and part.part in self.missing
            and crc32c(part.data) == own.parts[part.part]
        )


class BaseGathering:
    """Every base on its way to this node."""

    def __init__(self, config: DriverConfig, floor: Floor) -> None:
        self._floor = floor
        self._count_max = config.bases_count_max
        self._window = config.base_inflight_bytes_max // config.base_part_bytes_max
        self._patience = config.election_ticks
        #: By group, in the order of their announcements.
        self._under_way: dict[int, Gathering] = {}
        self._now = 0
        self._written = 0

    def __len__(self) -> int:
        return len(self._under_way)

    def announced(self, group: Group, head: Message) -> bool:
        """Takes the announcement of a base in parts; False if the core can have it at once."""
        base = head.snapshot
        assert base is not None, "an announcement names its base"
        if not base.parts:
            # It takes the place of what is gathered, whose parts go with the log that it ends.
            if (known := self._under_way.get(group.meta.group_id)) is not None:
                self._give_up(known)
            return False
        if not group.raw.would_restore(head):
            return False
        if group.installing:
            # The leader repeats it, if it is still of use then.
            return True
        known = self._under_way.get(group.meta.group_id)
        if known is not None and known.group is group:
            if known.is_of(base):
                self._heard_again(known, head)
                self._hand_over()
                self._ask()
                return True
            if (head.term, base.index) < (known.head.term, known.base.index):
                return True
        if known is not None:
            self._give_up(known)
        self._under_way[group.meta.group_id] = Gathering(group, head, self._now)
        self._ask()
        return True

    def _heard_again(self, known: Gathering, head: Message) -> None:
        if head.term < known.head.term:
            return
        if head.from_ != known.head.from_:
            known.asked.clear()
        known.head = head
        known.touched_at = self._now

    def brought(self, group: Group, part: Snapshot, number: int) -> None:
        """Takes a part; what it has written is in the effects `number`."""
        found = self._under_way.get(group.meta.group_id)
        if found is None or found.group is not group or self._is_over(found):
            return
        if not found.takes(part):
            return
        del found.missing[part.part]
        found.asked.pop(part.part, None)
        found.touched_at = self._now
        group.storage.put_part(part.index, part.part, part.data, self._floor.pending.batch)
        # As they come: a sync of all at the end would keep everybody else's waiting.
        self._floor.pending.must_sync = True
        if not found.missing:
            found.whole_with = number
        self._ask()

    def written(self, number: int) -> None:
        """Notes that what was put into these effects is on the disk."""
        self._written = number
        if self._under_way:
            self._hand_over()

    def _hand_over(self) -> None:
        """Gives the core the bases whose last part is written by now (rule B2)."""
        for each in tuple(self._under_way.values()):
            group = each.group
            whole = 0 < each.whole_with <= self._written
            # One that was announced in an earlier term waits for the present leader to name it.
            if whole and not self._is_over(each) and group.raw.would_restore(each.head):
                del self._under_way[group.meta.group_id]
                self._floor.wake(group)
                self._floor.guarded(group, partial(self._step, each))
                self._ask()

    def _step(self, whole: Gathering) -> None:
        group = whole.group
        group.installing = True
        try:
            group.raw.step(whole.head)
        except StepRefusedError:
            group.installing = False
            group.storage.drop_parts(whole.base.index, self._floor.pending.batch)
        self._floor.mark(group)

    def tick(self) -> None:
        """Asks again for what did not come, and gives up what nobody sends."""
        if not self._under_way:
            return
        self._now += 1
        oldest = self._now - self._patience
        for each in tuple(self._under_way.values()):
            idle_ticks = self._now - each.touched_at
            if self._is_over(each) or idle_ticks > _IDLE_PERIODS * self._patience:
                self._give_up(each)
                continue
            for number in [one for one, tick in each.asked.items() if tick <= oldest]:
                del each.asked[number]
        self._ask()

    def _is_over(self, each: Gathering) -> bool:
        """Whether the base is of no use any more."""
        group = each.group
        return (
            self._floor.group(group.meta.group_id) is not group
            or group.applied >= each.base.index
            or group.role is Role.LEADER
        )

    def _give_up(self, each: Gathering) -> None:
        """Forgets a base and deletes what has come of it (rule B4)."""
        group, index = each.group, each.base.index
        del self._under_way[group.meta.group_id]
        own = group.draft.checkpoint.index if group.draft is not None else 0
        if self._floor.group(group.meta.group_id) is group and own != index:
            group.storage.drop_parts(index, self._floor.pending.batch)

    def _ask(self) -> None:
        """Asks for as many parts as may be on their way (rule B5)."""
        active = list(self._under_way.values())[: self._count_max]
        on_their_way: dict[int, int] = {}
        for each in active:
            source = node_of(each.head.from_)
            on_their_way[source] = on_their_way.get(source, 0) + len(each.asked)
        for each in active:
            source = node_of(each.head.from_)
            room = self._window - on_their_way[source]
            free = [number for number in each.missing if number not in each.asked][: max(0, room)]
            on_their_way[source] += len(free)
            for number in free:
                each.asked[number] = self._now
                self._floor.pending.sends.append(_pull(each, number))


def _pull(each: Gathering, number: int) -> Envelope:
    own, source, base = each.group.meta.replica_id, each.head.from_, each.base
    wanted = Snapshot(base.index, base.term, ConfState(), part=number)
    message = Message(MessageType.BASE_PULL, source, own, each.head.term, snapshot=wanted)
    return Envelope(each.group.meta.group_id, own, source, message)
