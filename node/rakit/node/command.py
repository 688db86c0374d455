"""From the command line to a running node and its exit code.

Stdout gets one line, when the node is ready; stderr gets the log, and one line that begins with
`rakit:` for whatever ended the node other than an order to stop.

On a disk that hangs the process ends at once, without the interpreter's own farewell: that would
close the database, which waits for the same disk.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
from collections.abc import Sequence
from typing import Final

import uvloop

from rakit.node import logs
from rakit.node.app import EXIT_MISUSE, Node
from rakit.node.config import ConfigError, NodeConfig, load

#: Collections are rare: most objects are messages that die young, without cycles. What a start
#: leaves behind is never looked at again.
GC_THRESHOLDS: Final = (50_000, 20, 20)


def main(argv: Sequence[str]) -> int:
    """Runs one node; returns the exit code."""
    try:
        config = load(argv)
    except ConfigError as error:
        sys.stderr.write(f"rakit: {error}\n")
        return EXIT_MISUSE
    logs.configure(config.log_format, config.log_level)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(config))


async def _serve(config: NodeConfig) -> int:
    """Runs the node until a signal or its own end."""
    node = Node(config)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, node.stop)
    announcing = asyncio.create_task(_announce(node))
    try:
        end = await node.run()
    finally:
        announcing.cancel()
        await asyncio.gather(announcing, return_exceptions=True)
    if end.reason:
        sys.stderr.write(f"rakit: {end.reason}\n")
    if end.disk_hangs or end.store_is_open:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(end.code)
    return end.code


async def _announce(node: Node) -> None:
    await node.ready.wait()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    http = node.listeners.http_address
    health = "" if http is None else f" health on {http},"
    clients = ", ".join(node.listeners.advertised.values())
    sys.stdout.write(
        f"rakit: node {node.host.node_id} ready, clients on {clients}, peers on"
        f" {node.listeners.peer_advertised},{health} data in {node.config.data_dir}\n"
    )
    sys.stdout.flush()
