"""Declares `rakit bench` and its commands; what they measure is defined in each one's help.

Nothing here imports gRPC or the SDK; a command loads what it needs when it runs.
"""

# ruff: noqa: PLC0415 - a command loads the SDK and gRPC when it runs, so that help is quick

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final

import typer

from rakit.client.cli import bench_more
from rakit.client.cli.bench_base import Bootstrap, Output, finish, finish_all
from rakit.client.cli.output import Format

app: Final = typer.Typer(
    help=(
        "Measure what a cluster takes in and gives back, how soon, and what it costs.\n\n"
        "Without --bootstrap each command starts three nodes of its own on loopback, with data in"
        " a temporary directory (TMPDIR says where), and ends them. RAKIT_BOOTSTRAP is ignored, so"
        " that nobody loads a cluster in use by accident. Figures count what is acknowledged:"
        " fsynced by a majority. Compare figures within one run only; RATIO, rakit's figure divided"
        " by the reference measured beside it, is what stays comparable."
    ),
    no_args_is_help=True,
    rich_markup_mode=None,
)

#: What a cluster takes.
GROUPS_MAX: Final = 100_000


class Interface(StrEnum):
    """How records are handed to the SDK."""

    BATCH = "batch"
    RECORD = "record"


@app.command("produce")
def produce(
    *,
    record_bytes: Annotated[int, typer.Option(help="Size of a value.", min=1)] = 1024,
    batch_bytes: Annotated[
        int, typer.Option(help="Size of a batch, up to 16 MiB.", min=1, max=15 << 20)
    ] = 1 << 20,
    partitions: Annotated[int, typer.Option(help="Partitions of the topic.", min=1)] = 6,
    seconds: Annotated[float, typer.Option(help="How long to measure.", min=0.1)] = 30,
    interface: Annotated[
        Interface, typer.Option(help="send_batch(), or send() for each record.")
    ] = Interface.BATCH,
    warm_up_seconds: Annotated[float, typer.Option(help="Not measured.", min=0)] = 5,
    producers: Annotated[
        int, typer.Option(help="With connections of their own, in one process.", min=1, max=1000)
    ] = 1,
    bootstrap: Bootstrap = None,
    output: Output = Format.TABLE,
) -> None:
    """Measure how much the cluster takes in.

    A closed loop: twelve batches are unacknowledged at any time, over all partitions. Several
    producers share them, each with two at least.

    \b
    acknowledged       values acknowledged in the measured time; MB are 10^6 bytes
    acknowledgement    from the call to the receipt, waiting in the producer included;
                       of batches, or of one record in 64
    CPU                user and system seconds in the measured time, all threads; beside it the
                       same for each GB (10^9 bytes) of values acknowledged
    memory             proportional share (PSS), sampled each second; of all nodes together
                       at one moment, and of each
    written to disk    what the nodes made the kernel send to a disk, for each MB of values
                       acknowledged; three replicas make it 3 at least
    reference: disk    write + fdatasync of 1 MiB chunks to three files at once, MB/s of each:
                       what three nodes must do at least with every byte
    reference: pipeline  the same messages through a leader and two followers that do nothing
                       else, fsync included: no Raft, one log
    reference: gRPC    the same messages there and back on one stream between two processes

    Example: rakit bench produce --record-bytes 100 --seconds 10
    """
    from rakit.client.bench import produce as work

    settings = work.ProduceSettings(
        record_bytes,
        batch_bytes,
        partitions,
        seconds,
        work.Interface(interface),
        warm_up_seconds,
        producers,
    )
    finish(output, lambda say: work.bench_produce(bootstrap, settings, say), bootstrap)


@app.command("latency")
def latency(
    *,
    rate: Annotated[float, typer.Option(help="Records a second, open loop.", min=1)] = 1000,
    record_bytes: Annotated[int, typer.Option(help="Size of a value.", min=0)] = 100,
    seconds: Annotated[float, typer.Option(help="How long to measure each load.", min=0.1)] = 20,
    of_maximum: Annotated[
        float, typer.Option(help="Part of the maximum, 0.5 for half, instead of --rate.", min=0)
    ] = 0,
    bootstrap: Bootstrap = None,
    output: Output = Format.TABLE,
) -> None:
    """Measure how long single records take.

    Two loads after each other, records without a key through send() to six partitions.

    \b
    one caller       sends the next record when the one before is acknowledged
    N records/s      an open loop: a record is due every 1/N s, whatever the cluster does, and
                     its latency counts from when it was due, so a stall shows in all of them;
                     with --of-maximum N is that part of what a closed loop of the same calls gets
                     acknowledged
    p50, p99         nearest rank over all records; longest is the worst of them
    reference        round trip of a message of the same size on a bare gRPC stream

    Example: rakit bench latency --rate 2000 --seconds 10
    """
    from rakit.client.bench import latency as work

    settings = work.LatencySettings(rate, record_bytes, seconds, of_maximum=of_maximum)
    finish(output, lambda say: work.bench_latency(bootstrap, settings, say), bootstrap)


@app.command("failover")
def failover(
    *,
    kills: Annotated[int, typer.Option(help="How many leaders are killed.", min=1)] = 10,
    output: Output = Format.TABLE,
) -> None:
    """Measure how long writers wait when a leader is killed.

    Three nodes of its own take a record for each of six partitions every 10 ms. A node that leads
    gets SIGKILL; the gap of a partition that it led ends with the first acknowledgement of a
    record sent after the kill. The node is started again, and the next kill comes when all
    replicas are equal and all leaders are where they were.

    \b
    kill N                       until all partitions that the node led go on
    first partition goes on      until one of them does
    all partitions go on         until all of them do

    Example: rakit bench failover --kills 3
    """
    from rakit.client.bench import failover as work

    finish(output, lambda say: work.bench_failover(kills, say))


@app.command("idle")
def idle(
    *,
    partitions: Annotated[int, typer.Option(help="With three replicas each.", min=1)] = 1000,
    output: Output = Format.TABLE,
) -> None:
    """Measure what partitions cost that nobody uses.

    Three nodes of its own get a topic and are left alone until their CPU use stops falling.

    \b
    CPU of a node          percent of one core over 20 s, everything included
    memory of a replica    growth of all nodes since before the topic, divided by the replicas
    created                until every partition has a leader

    Example: rakit bench idle --partitions 200
    """
    from rakit.client.bench import idle as work

    settings = work.IdleSettings(partitions)
    finish(output, lambda say: work.bench_idle(settings, say))


@app.command("groups")
def groups(
    *,
    counts: Annotated[
        str, typer.Option(metavar="N,...", help="How many groups, one column each.")
    ] = "10,100,1000,10000",
    rounds: Annotated[
        int, typer.Option(help="How often the busy group is measured on both sides.", min=1)
    ] = 18,
    output: Output = Format.TABLE,
) -> None:
    """Measure what grows with the number of groups.

    For each count three nodes of its own get so many partitions with three replicas. About seven
    minutes for a count, ten for 10,000 on two cores.

    \b
    CPU of a node           percent of one core over 10 s, at rest, everything included
    memory of a replica     growth of all nodes since they were empty, divided by the replicas
    created                 until every node knows a leader of every partition
    busy group              one partition more: single records of 100 bytes, and a closed loop
    slower than alone       against a cluster beside it that has that partition only, measured in
                            turn; mean over rounds of the ratio, and its 95 % interval
    a node is killed        from SIGKILL until both others know a leader of every partition
    it is started           from the start of its process, with all replicas on its disk

    Example: rakit bench groups --counts 100,1000 --rounds 3
    """
    from rakit.client.bench import groups as work

    settings = work.GroupsSettings(_counts(counts), rounds)
    finish_all(output, lambda say: work.bench_groups(settings, say))


def _counts(text: str) -> tuple[int, ...]:
    """Reads the counts; raises typer's own complaint."""
    parts = text.split(",")
    if not all(part.strip().isdecimal() and 1 <= int(part) <= GROUPS_MAX for part in parts):
        raise typer.BadParameter(
            f"{text!r} is no list of numbers from 1 to {GROUPS_MAX:,}, like 100,1000",
            param_hint="--counts",
        )
    return tuple(int(part) for part in parts)


@app.command("start")
def start(*, output: Output = Format.TABLE) -> None:
    """Measure how long a new one-node cluster takes to serve.

    What `rakit dev` starts: from the start of the process to its word that it is ready, imports
    included, on an empty directory; the median of five.

    Example: rakit bench start -o json
    """
    from rakit.client.bench import start as work

    finish(output, work.bench_start)


@app.command("client")
def client(
    *,
    record_bytes: Annotated[int, typer.Option(help="Size of a value.", min=1)] = 100,
    seconds: Annotated[float, typer.Option(help="How long to measure each way.", min=0.1)] = 5,
    output: Output = Format.TABLE,
) -> None:
    """Measure what one process of the SDK can do, whatever the cluster can.

    The other side is a process that acknowledges and sends without storing anything.

    \b
    send()                    record by record, acknowledged
    send_batch()              a MiB at a time, acknowledged; and its encoding alone
    iterated by a Reader      record by record, with `async for` over all of
                              them and with `for` over those of each batch
    values of batches         without a Record for each
    each second of CPU        what the client does on a core of its own

    Example: rakit bench client --seconds 10
    """
    from rakit.client.bench import client as work

    settings = work.ClientSettings(record_bytes, seconds)
    finish(output, lambda say: work.bench_client(settings, say))


@app.command("all")
def everything(*, output: Output = Format.TABLE) -> None:
    """Run the benches that have goals and take a minute, and hold the figures against them.

    Takes about six minutes. GOAL is what the project wants to reach on two cores; figures that
    miss it do not make the command fail.

    Example: rakit bench all -o json > figures.json
    """
    from rakit.client.bench import everything as work

    finish_all(output, work.bench_all)


app.command("read")(bench_more.read)
app.command("group")(bench_more.group)
app.command("unary")(bench_more.unary)
app.command("restart")(bench_more.restart)
app.command("growth")(bench_more.growth)
