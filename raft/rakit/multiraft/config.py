"""Settings of the asyncio half of the host, and the gRPC options that both ends of a link need.

One frozen object per layer, validated when it is made: `LinkConfig` for the streams between nodes,
`LivenessConfig` for the decision whether a peer is there, `HostConfig` for the step loop around
them. The pure half has its own (`DriverConfig`). Every limit has its unit in its name and says what
happens beyond it.

Sizes of the pacing window come from measurement: one small message in flight and gather the rest
(3 ms instead of 900 ms at 1,000 records a second), several in flight only for bulk, where a window
of one costs a fifth of the throughput.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, TypeAlias

from rakit.multiraft.driver_config import DriverConfig

ChannelOptions: TypeAlias = list[tuple[str, int]]

MEBIBYTE: Final = 1 << 20

#: One gRPC message at most. An entry may be as large as 17 MiB and travels alone.
GRPC_MESSAGE_BYTES_MAX: Final = 64 * MEBIBYTE


@dataclass(frozen=True, slots=True)
class LinkConfig:
    """How a lane to one peer gathers, paces and reconnects."""

    #: Below this much waiting, one request is in flight and the rest gathers.
    bulk_bytes_min: int = 256 << 10
    #: Requests in flight when at least `bulk_bytes_min` wait.
    bulk_in_flight_count_max: int = 8
    #: Size at which a request is closed; a single larger message still goes out, alone.
    request_bytes_max: int = 4 * MEBIBYTE
    #: How long news of a commit waits for an append that it can travel with. Followers only apply
    #: by it; alone it costs both sides as much as an append does. Those of the metadata group leave
    #: at once: every node acts on what it applies.
    commit_delay_ms: int = 20
    #: Waiting on the data lane of one peer. Beyond it an append is refused and its group told. It
    #: does not come to that: from a quarter of it on groups read nothing more for that peer, until
    #: half of that quarter has left.
    data_queue_bytes_max: int = 64 * MEBIBYTE
    #: Waiting on the control lane of one peer, and answers waiting on either lane. Beyond it a
    #: message is dropped and counted: Raft repeats all of these by itself.
    control_queue_bytes_max: int = 8 * MEBIBYTE
    #: The same limits by number, since an empty message costs memory too.
    queue_count_max: int = 65_536
    #: Waiting time before the second attempt to connect; it doubles up to the maximum, jittered.
    backoff_ms_min: int = 20
    backoff_ms_max: int = 1_000
    #: From opening a stream to the peer's hello. It covers a connection attempt into the void.
    hello_timeout_ms: int = 2_000
    #: For connecting for frames, and again for the peer's hello there; the lane stays on gRPC then,
    #: and the port is tried again after a while. Longer than the control lane takes to notice a
    #: silence of the peer's, which is no fault of the port's.
    lane_timeout_ms: int = 3_000
    #: Between attempts to reach a port for frames that was not reached, twice as long each time.
    lane_retry_ms_min: int = 1_000
    lane_retry_ms_max: int = 60_000
    #: After which a stream as frames is given up on which nothing was ever answered, while the
    #: control lane is well. gRPC has pings for that.
    unanswered_ms_max: int = 10_000
    #: HTTP/2 pings of an otherwise silent connection, and how long their answer may take.
    keepalive_ms: int = 1_000
    #: The same where the answer may stand behind bulk, in the sockets of a slow path.
    bulk_ping_timeout_ms: int = 20_000

    @property
    def data_pause_bytes(self) -> int:
        """Waiting on the data lane of one peer, at which its groups pause."""
        return max(1, self.data_queue_bytes_max // 4)

    @property
    def data_pause_count(self) -> int:
        """The same by number."""
        return max(1, self.queue_count_max // 4)

    def __post_init__(self) -> None:
        """Refuses settings that contradict each other."""
        assert 0 < self.bulk_bytes_min <= self.request_bytes_max, "bulk begins within one request"
        assert self.request_bytes_max <= self.data_queue_bytes_max, "a queue holds one request"
        assert self.request_bytes_max <= GRPC_MESSAGE_BYTES_MAX // 2, "one more entry must fit"
        assert self.bulk_in_flight_count_max >= 1, "a window of nothing never sends"
        assert 0 < self.backoff_ms_min <= self.backoff_ms_max, "the back-off grows"
        assert self.queue_count_max > 0, "a queue holds something"
        assert self.control_queue_bytes_max > 0, "a queue holds something"
        limits = (self.hello_timeout_ms, self.lane_timeout_ms, self.unanswered_ms_max)
        assert min(limits) > 0, "time limits are positive"
        assert 0 < self.lane_retry_ms_min <= self.lane_retry_ms_max, "the back-off grows"
        assert 0 < self.keepalive_ms <= self.bulk_ping_timeout_ms, "bulk delays answers"
        assert self.commit_delay_ms > 0, "news that wait for nothing are appends"


@dataclass(frozen=True, slots=True)
class LivenessConfig:
    """When a peer counts as up or down (S15, S16)."""

    #: Between two pings to a peer.
    ping_ms: int = 250
    #: Silence after which a peer is down though nothing was reset: a cable was cut.
    silence_ms: int = 1_000
    #: Distance from the median of all clocks at which the own clock is wrong (S3).
    clock_skew_ms_max: int = 5_000

    def __post_init__(self) -> None:
        """Refuses settings that contradict each other."""
        assert self.ping_ms > 0, "pings take time"
        assert self.silence_ms >= 2 * self.ping_ms, "one lost ping is no silence"
        assert self.clock_skew_ms_max > 0, "clocks always differ a little"


@dataclass(frozen=True, slots=True)
class HostConfig:
    """How the step loop runs."""

    #: Length of a tick; elections and heartbeats are counted in them.
    tick_ms: int = 50
    #: Ticks made up for after a pause of the process. More would let every group campaign at once
    #: although the leaders' heartbeats already wait in the sockets.
    tick_catch_up_count_max: int = 4
    #: Received and not yet stepped on either lane, over all peers. Beyond it nothing is read.
    inbox_bytes_max: int = 64 * MEBIBYTE
    #: Taken in, and not yet worked off, in one turn of the step loop; and written, sent and applied
    #: in one, or a step more. Other tasks have their turn before the loop goes on.
    round_bytes_max: int = 8 * MEBIBYTE
    #: Steps in one turn, if they cost next to nothing.
    round_steps_max: int = 16
    #: A sync that takes longer makes this node give up its leaderships (S13).
    sync_stall_ms_max: int = 1_000
    #: A turn is made for proposals of this size even while disk and links are busy anyway.
    gather_bytes_max: int = 64 << 10
    #: Pause before a batch that RocksDB stalled is written again (S12).
    write_retry_ms: int = 5
    #: Linearizable reads that wait at once, over all groups; more are refused.
    barrier_count_max: int = 65_536
    #: A graceful stop waits this long for other nodes to take over leaderships.
    stop_transfer_ms_max: int = 3_000
    #: A graceful stop waits this long for the last flush.
    stop_flush_ms_max: int = 5_000
    #: Every stop waits this long for the flush under way; a disk that takes longer hangs.
    stop_sync_ms_max: int = 2_000
    driver: DriverConfig = field(default_factory=DriverConfig)
    link: LinkConfig = field(default_factory=LinkConfig)
    liveness: LivenessConfig = field(default_factory=LivenessConfig)

    def __post_init__(self) -> None:
        """Refuses settings that contradict each other."""
        assert self.tick_ms > 0, "time moves"
        assert self.tick_catch_up_count_max >= 1, "the tick that is due is always made"
        assert 0 < self.round_bytes_max <= self.inbox_bytes_max, "a round is a part of the inbox"
        assert self.sync_stall_ms_max > self.tick_ms, "the stall is looked for at every tick"
        assert self.write_retry_ms > 0, "a retry waits for the disk"
        assert self.barrier_count_max > 0, "reads are possible"
        assert self.round_steps_max > 0, "a turn makes a step"
        step, send = self.driver.step_bytes_max, self.driver.send_bytes_max
        room = self.link.data_queue_bytes_max - self.link.data_pause_bytes
        assert step + send <= room, "what a step sends fits behind the mark at which groups pause"
        waits = (self.stop_transfer_ms_max, self.stop_flush_ms_max, self.stop_sync_ms_max)
        assert min(waits) > 0, "a stop takes time"


def peer_channel_options(config: LinkConfig, *, bulk: bool) -> ChannelOptions:
    """Returns the options of a channel to a peer, for the one that carries bulk or for any other.

    The own subchannel pool is what makes two channels two connections (S17). A ping that is not
    answered ends a connection after `ping_timeout_ms`, which is a minute unless it is set, whatever
    the time limit of keepalive says (gRPC 1.85, measured). Its answer waits behind bulk: with a
    limit of a second nothing large ever came over a path of 4 MB/s. The short back-offs
    concern gRPC's own reconnecting: a peer that restarts must be found within a fraction of an
    election. So does the last one: a name that stands for another address now, as a pod's does when
    it comes back, would be looked up again after 30 s only.
    """
    return [
        ("grpc.max_send_message_length", GRPC_MESSAGE_BYTES_MAX),
        ("grpc.max_receive_message_length", GRPC_MESSAGE_BYTES_MAX),
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.enable_http_proxy", 0),
        ("grpc.keepalive_time_ms", config.keepalive_ms),
        ("grpc.keepalive_timeout_ms", config.keepalive_ms),
        (
            "grpc.http2.ping_timeout_ms",
            config.bulk_ping_timeout_ms if bulk else config.keepalive_ms,
        ),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", config.hello_timeout_ms),
        ("grpc.max_reconnect_backoff_ms", 250),
        ("grpc.dns_min_time_between_resolutions_ms", 1_000),
    ]


def peer_server_options(config: LinkConfig | None = None) -> ChannelOptions:
    """Returns the options of the server that peers connect to; the node creates it with these."""
    link = LinkConfig() if config is None else config
    return [
        ("grpc.max_send_message_length", GRPC_MESSAGE_BYTES_MAX),
        ("grpc.max_receive_message_length", GRPC_MESSAGE_BYTES_MAX),
        # Two processes on one port must be an error, not a silent split of the connections.
        ("grpc.so_reuseport", 0),
        ("grpc.keepalive_time_ms", link.keepalive_ms),
        ("grpc.keepalive_timeout_ms", link.keepalive_ms),
        ("grpc.http2.ping_timeout_ms", link.bulk_ping_timeout_ms),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", link.keepalive_ms // 2),
        ("grpc.http2.max_ping_strikes", 0),
    ]
