"""The sending end of a large base: parts of it are read and sent to those who ask.

Rules:

- Rule B6: only a leader gives a base away, and only the one that its log begins with. Who asks for
  another is a replica that was told of it before the log was trimmed: the core hears that it cannot
  be delivered, and tells that replica of the present one.
- Rule B7: while a base is fetched the log stays as it is, for as long as a part is asked for now
  and then: neither the base may go, nor the entries that follow it. Else a log that is trimmed
  faster than its base travels would never let a replica in.
- Rule B8: as long as it is fetched the base is not lost, which the core is told.
- Rule B9: what a step reads for that is bounded like everything else; where the way to a node is
  full nothing is read, and who asked asks again. So many replicas may fetch at once, and others
  get no answer until one of them is done.

Left out: how much is on its way, which the receiver bounds (`base_gathering`).
"""

from __future__ import annotations

from collections import deque

from rakit.multiraft.driver_config import DriverConfig
from rakit.multiraft.effects import Effects, Envelope
from rakit.multiraft.floor import GROUP_FATAL, Floor
from rakit.multiraft.group import NOBODY, Group
from rakit.multiraft.lanes import Lanes
from rakit.multiraft.machine import node_of
from rakit.raft import ConfState, Message, MessageType, Role, Snapshot

#: What a part costs beside its bytes, in the measure of a step.
_PART_COST_BYTES = 8 << 10
#: Election periods after which who has asked for nothing more is not waited for.
_IDLE_PERIODS = 2


class BaseServing:
    """Who is fetching which base, and the parts that were asked for.

    Invariant: `group.base_readers` are the replicas of `_readers` that fetch from this group.
    """

    def __init__(self, config: DriverConfig, floor: Floor, lanes: Lanes) -> None:
        self._floor = floor
        self._lanes = lanes
        self._count_max = config.bases_count_max
        window = config.base_inflight_bytes_max // config.base_part_bytes_max
        self._pulls_max = 2 * window * config.bases_count_max
        self._patience = _IDLE_PERIODS * config.election_ticks
        #: (group, replica elsewhere) to the tick in which it last asked.
        self._readers: dict[tuple[int, int], tuple[Group, int]] = {}
        self._pulls: deque[tuple[Group, int, Snapshot]] = deque()
        self._now = 0

    @property
    def idle(self) -> bool:
        """Whether nothing waits to be sent."""
        return not self._pulls

    def asked(self, group: Group, replica: int, part: Snapshot) -> None:
        """Notes that a replica asks for a part."""
        if group.raw.basic_status().role is not Role.LEADER:
            return
        base, key = group.storage.base, (group.meta.group_id, replica)
        if (part.index, part.term) != (base.index, base.term):
            group.raw.report_base_gone(replica, part.index)
            self._floor.mark(group)
            return
        known = self._readers.get(key)
        if (known is None and len(self._readers) >= self._count_max) or (
            len(self._pulls) >= self._pulls_max
        ):
            return
        self._readers[key] = (group, self._now)
        group.base_readers |= {replica}
        group.raw.report_base_moves(replica, part.index)
        self._pulls.append((group, replica, part))

    def serve(self, effects: Effects, moved_bytes_max: int) -> None:
        """Sends what was asked for, while the step has room."""
        while self._pulls and effects.moved_bytes < moved_bytes_max:
            group, replica, part = self._pulls.popleft()
            if self._floor.group(group.meta.group_id) is not group:
                continue
            if node_of(replica) in self._lanes.waiting:
                continue
            try:
                data = self._read(group, part)
            except GROUP_FATAL as error:
                self._floor.fail(group, error)
                continue
            if data is not None:
                effects.moved_bytes += len(data) + _PART_COST_BYTES
                effects.sends.append(_envelope(group, replica, part, data))

    def _read(self, group: Group, part: Snapshot) -> bytes | None:
        log = group.storage
        if log.base.index != part.index:
            return None
        parts = log.checkpoint(part.index).parts
        return log.part(part.index, parts, part.part) if 0 <= part.part < len(parts) else None

    def tick(self) -> None:
        """Lets the logs go whose base nobody asks for any more."""
        if not self._readers:
            return
        self._now += 1
        oldest = self._now - self._patience
        for key, (group, tick) in tuple(self._readers.items()):
            if tick < oldest or self._floor.group(key[0]) is not group:
                del self._readers[key]
                group.base_readers = (group.base_readers - {key[1]}) or NOBODY
                if self._floor.group(key[0]) is group:
                    self._floor.mark(group)


def _envelope(group: Group, replica: int, part: Snapshot, data: bytes) -> Envelope:
    own = group.meta.replica_id
    carried = Snapshot(part.index, part.term, ConfState(), data, part=part.part)
    message = Message(MessageType.BASE_PART, replica, own, group.term, snapshot=carried)
    return Envelope(group.meta.group_id, own, replica, message)
