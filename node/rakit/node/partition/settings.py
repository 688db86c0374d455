"""A topic's settings as a partition uses them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from rakit.node.partition.batches import BatchLimits

#: The log is never cut in smaller steps: a checkpoint for every few batches would cost more than
#: it frees.
SEGMENT_BYTES_MIN: Final = 64 * 1024
SEGMENT_MS_MIN: Final = 1_000
#: A segment is at most this part of what is kept, so that cutting whole segments keeps at least
#: three quarters of what the user asked for.
_SEGMENTS_KEPT: Final = 4


@dataclass(frozen=True, slots=True)
class TopicSettings:
    """One topic's settings; whoever reads them from the registry has filled in the defaults."""

    #: Keep at most this many bytes of a partition; None: no limit.
    retention_bytes: int | None = None
    #: Keep records this long after they were appended; None: for ever.
    retention_ms: int | None = None
    batch_bytes_max: int = 2 * 1024 * 1024
    batch_decompressed_bytes_max: int = 8 * 1024 * 1024
    #: The log is cut in steps of about this many bytes ...
    segment_bytes: int = 64 * 1024 * 1024
    #: ... and of at most this much time.
    segment_ms: int = 600_000

    def __post_init__(self) -> None:
        for name in ("retention_bytes", "retention_ms"):
            value: int | None = getattr(self, name)
            assert value is None or value >= 0, f"{name} is {value}: None stands for no limit"
        assert self.batch_bytes_max > 0, "a batch must be allowed some bytes"
        assert self.segment_bytes > 0, "a segment must be allowed some bytes"

    @property
    def batch_limits(self) -> BatchLimits:
        """The limits for one batch."""
        return BatchLimits(self.batch_bytes_max, self.batch_decompressed_bytes_max)

    @property
    def step_bytes(self) -> int:
        """Bytes after which a checkpoint is due: smaller where little is kept."""
        if self.retention_bytes is None:
            return self.segment_bytes
        share = max(self.retention_bytes // _SEGMENTS_KEPT, SEGMENT_BYTES_MIN)
        return min(self.segment_bytes, share)

    @property
    def step_ms(self) -> int:
        """Time after which a checkpoint is due: shorter where records are kept briefly."""
        if self.retention_ms is None:
            return self.segment_ms
        return min(self.segment_ms, max(self.retention_ms // _SEGMENTS_KEPT, SEGMENT_MS_MIN))
