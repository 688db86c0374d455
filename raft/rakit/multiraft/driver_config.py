"""The settings of the pure half: frozen, validated once, times in ticks since it has no clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from rakit.raft import Tracer

_KIB: Final = 1024
_MIB: Final = 1024 * _KIB


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverConfig:
    """How a driver steps its groups; the defaults suit ticks of 50 ms."""

    #: A follower that hears nothing campaigns after [election, 2 * election) ticks (S16).
    election_ticks: int = 20
    #: Ticks between a leader's heartbeats.
    heartbeat_ticks: int = 5
    #: A leader that nothing has asked for this long lets its group go quiet; 0: never.
    quiesce_ticks: int = 30
    #: Ticks after which a newborn or orphaned group's next voter has its turn to campaign: long
    #: enough for the turn before to be won over a slow disk, short enough to stay within S16.
    campaign_turn_ticks: int = 4
    #: Campaigns of this node under way at one time. The rest wait for their turn, so that the loss
    #: of a node that led thousands of groups does not become one burst, in which every election
    #: takes longer than voters wait before they try again, and none succeeds.
    campaigns_count_max: int = 64
    #: Ticks that a read request waits for a leader's confirmation before it is given up.
    read_timeout_ticks: int = 40
    #: Bytes of one write batch, beside what was held for it; a write holds the interpreter for its
    #: whole duration.
    batch_bytes_max: int = 4 * _MIB
    #: Bytes of recent entries kept in memory, over all groups, for sending and reading.
    tail_cache_bytes_max: int = 32 * _MIB
    #: The same, as long as all of them are still to be applied or sent.
    tail_cache_needed_bytes_max: int = 64 * _MIB
    #: Appends that the tail cache remembers, over all groups, whatever their size.
    tail_cache_appends_max: int = 65_536
    #: Bytes of entries that were read from the disk and did not fit into their answers.
    read_ahead_bytes_max: int = 16 * _MIB
    #: Bytes of entries in one append message.
    message_bytes_max: int = _MIB
    #: Append messages and bytes on their way to one replica.
    inflight_messages_max: int = 256
    inflight_bytes_max: int = 16 * _MIB
    #: Payload bytes of a group that wait for commit; beyond it proposals are refused.
    uncommitted_bytes_max: int = 32 * _MIB
    #: Bytes of entries that one Ready of a group sends to one replica, and that one applies, the
    #: latter by number too. A group that has more goes on after the others had their turn.
    send_bytes_max: int = 2 * _MIB
    apply_bytes_max: int = _MIB
    apply_count_max: int = 256
    #: What a step reads, sends and applies over all groups, in `Effects.moved_bytes`; a quarter of
    #: it for one group. Beyond, the others keep their place. A step thus takes less than a tick.
    step_bytes_max: int = 8 * _MIB
    #: A state larger than this is stored and sent in parts of this size.
    base_part_bytes_max: int = 512 * _KIB
    #: Parts of bases that this node has asked one other node for and not got, in bytes: what the
    #: appends of other groups may find before them on their way.
    base_inflight_bytes_max: int = 2 * _MIB
    #: Bases that this node gathers at once, and as many that it gives away. The rest waits.
    bases_count_max: int = 2
    #: Read requests of a group that wait for an answer.
    reads_count_max: int = 4096
    #: Number of this start, which no other start of the store has, whatever was cut off its tail:
    #: stamped on acknowledgements, so that a leader can tell those of an earlier life (S8).
    boot: int = 1
    #: The store was cut at its damaged tail: replicas found on it vote with doubt (S8).
    doubtful: bool = False
    #: Gives the tracer of a group's core (`rakit.raft.trace`); None: nothing is traced.
    tracer: Callable[[int], Tracer] | None = None

    def __post_init__(self) -> None:
        """Refuses settings that could not work."""
        for name in self.__dataclass_fields__:
            if name == "tracer":
                continue
            value = getattr(self, name)
            lowest = 0 if name in {"quiesce_ticks", "doubtful"} else 1
            if value < lowest:
                raise ValueError(f"{name} is {value}, it must be at least {lowest}")
        if self.election_ticks <= self.heartbeat_ticks:
            raise ValueError(
                f"election_ticks {self.election_ticks} must be greater than"
                f" heartbeat_ticks {self.heartbeat_ticks}"
            )
        if self.inflight_bytes_max < self.message_bytes_max:
            raise ValueError("inflight_bytes_max must hold at least one message")
        if self.base_inflight_bytes_max < self.base_part_bytes_max:
            raise ValueError("base_inflight_bytes_max must hold at least one part")
        if self.batch_bytes_max < self.message_bytes_max:
            raise ValueError("batch_bytes_max must hold at least the entries of one message")
