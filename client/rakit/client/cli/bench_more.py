"""Further commands of `rakit bench`: reading, and groups of members."""

# ruff: noqa: PLC0415 - a command loads the SDK and gRPC when it runs, so that help is quick

from __future__ import annotations

from typing import Annotated

import typer

from rakit.client.cli.bench_base import Bootstrap, Output, finish
from rakit.client.cli.output import Format


def read(
    *,
    record_bytes: Annotated[int, typer.Option(help="Size of a value.", min=8)] = 1024,
    fill_mb: Annotated[int, typer.Option(help="MB of values that are written first.", min=1)] = 512,
    partitions: Annotated[int, typer.Option(help="Partitions of the topic.", min=1)] = 6,
    readers: Annotated[int, typer.Option(help="Readers at the same time.", min=1, max=1000)] = 8,
    rate: Annotated[float, typer.Option(help="Records a second on the tail.", min=1)] = 1000,
    seconds: Annotated[float, typer.Option(help="How long to measure each way.", min=0.1)] = 10,
    bootstrap: Bootstrap = None,
    output: Output = Format.TABLE,
) -> None:
    """Measure how fast the cluster gives back, and how soon.

    A topic is filled, and read from its start to its end as often as the time allows.

    \b
    record by record   one reader, iterated
    batch by batch     one reader, the values of whole batches
    N readers          each with a connection of its own, each reads everything, batch by batch,
                       all in one process; MB and records of all together
    tail               an open loop of N records/s and a reader that follows: from when the send
                       was due until the reader has the record; the acknowledged write included
    CPU, a GB          user and system seconds for 10^9 bytes of values that were read
    reference          MiBs there and back on a bare gRPC stream; RATIO is that of batch by batch

    Example: rakit bench read --record-bytes 100 --fill-mb 256
    """
    from rakit.client.bench import read as work

    settings = work.ReadSettings(record_bytes, fill_mb, partitions, readers, rate, seconds)
    finish(output, lambda say: work.bench_read(bootstrap, settings, say), bootstrap)


def group(
    *,
    members: Annotated[int, typer.Option(help="Members of the group.", min=1, max=100)] = 3,
    partitions: Annotated[int, typer.Option(help="Partitions of the topic.", min=1)] = 6,
    record_bytes: Annotated[int, typer.Option(help="Size of a value.", min=1)] = 1024,
    fill_mb: Annotated[int, typer.Option(help="MB of values that are read.", min=1)] = 512,
    rounds: Annotated[int, typer.Option(help="How often each event comes.", min=1)] = 3,
    bootstrap: Bootstrap = None,
    output: Output = Format.TABLE,
) -> None:
    """Measure what a consumer group reads, and how long it takes to share anew.

    The members have connections of their own, all in one process.

    \b
    record by record   from the first record until all are read and their commits acknowledged;
                       commits go each second meanwhile
    batch by batch     the same with whole batches
    shared anew        from the event until all partitions are owned, evenly, and a record was read
                       in each of them that was sent after that; a record goes to each every 10 ms
    a member is killed SIGKILL of a process: the grace of its session, 10 s by default, is in it
    pause              the longest time that any partition had nothing read meanwhile

    Example: rakit bench group --members 2 --rounds 1
    """
    from rakit.client.bench import group as work

    settings = work.GroupSettings(members, partitions, record_bytes, fill_mb, rounds)
    finish(output, lambda say: work.bench_group(bootstrap, settings, say), bootstrap)
