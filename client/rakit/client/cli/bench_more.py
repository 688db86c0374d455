"""Further commands of `rakit bench`: reading, groups, unary calls, restarts, growth."""

# ruff: noqa: PLC0415 - a command loads the SDK and gRPC when it runs, so that help is quick

from __future__ import annotations

from typing import Annotated

import typer

from rakit.client.cli.bench_base import Bootstrap, Output, finish, finish_all
from rakit.client.cli.output import Format

#: What `--axes` names.
AXES = "record-bytes,partitions,producers,nodes,log-gb"


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

    A topic is filled, and read from end to end as often as the time allows, at least once.

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


def unary(
    *,
    callers: Annotated[int, typer.Option(help="Calls in flight.", min=1, max=10_000)] = 64,
    record_bytes: Annotated[int, typer.Option(help="Size of a value.", min=0)] = 100,
    partitions: Annotated[int, typer.Option(help="Partitions of the topic.", min=1)] = 6,
    rounds: Annotated[int, typer.Option(help="How often each side is measured.", min=1)] = 5,
    seconds: Annotated[float, typer.Option(help="Of each side in a round.", min=0.1)] = 4,
    bootstrap: Bootstrap = None,
    output: Output = Format.TABLE,
) -> None:
    """Measure a generated stub that produces one record a call.

    Each caller is an idempotent producer that awaits its answer before it calls again. The same
    loop makes the same calls to a bare gRPC server that gives them back, in turn with the cluster.

    \b
    acknowledged       calls a second, median over the rounds
    a call             from the call to its answer, over all rounds
    share of bare gRPC the cluster's rate in percent of the bare server's in the same round; the
                       lower end is that of the 95 % interval over the rounds, by Student's t

    Example: rakit bench unary --rounds 3
    """
    from rakit.client.bench import unary as work

    settings = work.UnarySettings(callers, record_bytes, partitions, rounds, seconds)
    finish(output, lambda say: work.bench_unary(bootstrap, settings, say), bootstrap)


def restart(
    *,
    gb: Annotated[float, typer.Option(help="GB of values that are there.", min=0.001)] = 1,
    record_bytes: Annotated[int, typer.Option(help="Size of a value.", min=1)] = 1024,
    partitions: Annotated[int, typer.Option(help="Partitions of the topic.", min=1)] = 6,
    output: Output = Format.TABLE,
) -> None:
    """Measure how long a cluster with data takes to serve again.

    Three nodes of its own are filled (three times as many GB on the disk), end, and are started
    all at once, which counts from the start of the processes.

    \b
    after SIGKILL      all nodes were killed
    after a clean stop all nodes had SIGTERM and ended by themselves
    all ready          until the last node says so
    all led            until each node knows a leader of every partition
    acknowledged       the first record of a client that was there before and goes on trying

    Example: rakit bench restart --gb 10
    """
    from rakit.client.bench import restart as work

    settings = work.RestartSettings(gb, record_bytes, partitions)
    finish(output, lambda say: work.bench_restart(settings, say))


def growth(
    *,
    axes: Annotated[str, typer.Option(metavar="NAME,...", help="Which tables.")] = AXES,
    seconds: Annotated[float, typer.Option(help="How long to measure a point.", min=0.1)] = 30,
    warm_up_seconds: Annotated[float, typer.Option(help="Not measured.", min=0)] = 5,
    rounds: Annotated[int, typer.Option(help="Of which the median is told.", min=1)] = 1,
    log_gb: Annotated[int, typer.Option(help="Columns of log-gb.", min=1, max=1000)] = 5,
    output: Output = Format.TABLE,
) -> None:
    """Measure how throughput and its cost change with what is asked for.

    One table for each axis; the figures are those of `rakit bench produce`, with its defaults for
    all that the axis does not change.

    \b
    record-bytes       100 B, 1 KiB, 16 KiB, 1 MiB
    partitions         1, 6, 48
    producers          1, 4, 16, in one process, which share the window of batches in flight
    nodes              3, 5, with three replicas of each partition
    log-gb             the first GB of values in a new cluster, the second, and so on; three times
                       as much on the disk

    Example: rakit bench growth --axes partitions,nodes --seconds 10
    """
    from rakit.client.bench import growth as work

    known = {str(axis): axis for axis in work.Axis}
    names = [name.strip() for name in axes.split(",")]
    if not set(names) <= known.keys():
        raise typer.BadParameter(f"{axes!r} is no list of {AXES}", param_hint="--axes")
    chosen = tuple(known[name] for name in names)
    settings = work.GrowthSettings(chosen, seconds, warm_up_seconds, rounds, log_gb)
    finish_all(output, lambda say: work.bench_growth(settings, say))
