"""What rakit is to reach, on two cores: the project's own table, as data.

A ratio counts as reached when the lower end of its interval is above the bar. A limit counts as
reached when the median is within it. Whatever way is better, a ratio says how many times better
rakit is: of a time it is theirs divided by ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Against(StrEnum):
    """Whom a ratio is held against: the one of them that is hardest to beat."""

    PEERS = "every peer"
    FSYNCING = "every peer that fsyncs"
    KAFKA = "kafka"
    PIPELINE = "pipeline"
    ECHO = "echo"
    #: No ratio: a limit in the figure's own unit.
    NOBODY = "a limit"


@dataclass(frozen=True, slots=True)
class Bar:
    """One row."""

    text: str
    work: str
    figure: str
    must: float | None
    goal: float | None
    against: Against = Against.PEERS
    more_is_better: bool = True
    #: Of rakit's settings the one that is meant; None: the best.
    setting: str | None = None


def _less(
    text: str,
    what: tuple[str, str],
    must: float | None,
    goal: float | None,
    against: Against = Against.NOBODY,
) -> Bar:
    return Bar(text, *what, must, goal, against, more_is_better=False)


BARS = (
    Bar("produce 100 B, batches", "produce-100-p1-x1-batch", "records_per_s", 2, 4),
    Bar("produce 100 B, record by record", "produce-100-p1-x1-record", "records_per_s", 1.2, 2),
    Bar("produce 1 KiB, one partition", "produce-1k-p1-x1-batch", "mb_per_s", 1.4, 2),
    Bar("produce 1 KiB, six partitions", "produce-1k-p6-x1-batch", "mb_per_s", 1.4, 2),
    Bar("produce 16 KiB", "produce-16k-p1-x1-batch", "mb_per_s", 1.1, 1.5),
    Bar("produce 1 MiB", "produce-1m-p1-x1-batch", "mb_per_s", 1.1, 1.5),
    Bar(
        "share of the bare pipeline, 1 KiB",
        "produce-1k-p1-x1-batch",
        "mb_per_s",
        0.75,
        0.95,
        Against.PIPELINE,
        # What the pipeline is given.
        setting="1 MiB",
    ),
    _less("1,000 single records/s, p50", ("latency-1000", "p50_ms"), 1, 2, Against.FSYNCING),
    _less("1,000 single records/s, p99", ("latency-1000", "p99_ms"), 1, 2, Against.FSYNCING),
    _less("1,000 single records/s, p50, ms", ("latency-1000", "p50_ms"), None, 2.5),
    _less("1,000 single records/s, p99, ms", ("latency-1000", "p99_ms"), None, 8),
    _less("20,000 single records/s, p50, ms", ("latency-20000", "p50_ms"), 10, 4),
    _less("20,000 single records/s, p99, ms", ("latency-20000", "p99_ms"), 40, 15),
    Bar("unary calls, 64 callers", "unary-100-x64", "records_per_s", 0.4, 0.6, Against.ECHO),
    Bar("read 100 B, record by record", "read-100-x1-record", "records_per_s", 3, 5),
    Bar("read 1 KiB", "read-1k-x1-batch", "mb_per_s", 1.3, 2),
    _less("leader killed, s", ("kill", "gap_s"), 1, 0.3),
    _less("leader silent, s", ("pause", "gap_s"), 3, 1.5),
    _less(
        "cores of an idle partition", ("idle-1000", "cores_per_partition"), 5, None, Against.KAFKA
    ),
    _less("cores of an idle partition", ("idle-1000", "cores_per_partition"), None, 0.3 / 10_000),
    _less("memory of an idle replica, kB", ("idle-1000", "replica_kb"), 20, 10),
    # At the setting that takes in most, whatever takes least.
    Bar(
        "memory of three nodes, MiB",
        "produce-1k-p6-x1-batch",
        "memory_mib",
        600,
        300,
        Against.NOBODY,
        more_is_better=False,
        setting="3 MiB",
    ),
    Bar(
        "CPU of the nodes for a GB, 1 KiB",
        "produce-1k-p1-x1-batch",
        "cpu_s_per_gb",
        1,
        2,
        more_is_better=False,
        setting="3 MiB",
    ),
)
