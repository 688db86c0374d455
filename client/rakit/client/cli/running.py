"""Runs a command's coroutine and turns its end into an exit code: 0 done, 1 failed.

An error becomes one line on stderr that says what went wrong and what to do about it. Ctrl-C and
SIGTERM cancel the coroutine, so that everything it opened is closed, and leave no traceback.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Coroutine
from typing import Final, NoReturn

from rakit.client.cli.complaints import CommandError, complain
from rakit.client.errors import RakitError

if sys.platform == "linux":
    from uvloop import new_event_loop
else:
    from asyncio import new_event_loop

FAILED: Final = 1
_ADVICE: Final = {
    "UNREACHABLE": "is a node running there? `rakit dev` starts one; --bootstrap or"
    " RAKIT_BOOTSTRAP says where to look",
    "DEADLINE": "the node hangs or is overloaded; `rakit cluster status` tells more",
    "UNKNOWN_TOPIC": "`rakit topic list` shows the topics, `rakit topic create NAME` makes one",
    "TOPIC_EXISTS": "`rakit topic get NAME` shows it, `rakit topic update NAME` changes it",
    "REPLICATION_FACTOR_TOO_LARGE": "`rakit cluster status` shows the nodes",
    "NO_LEADER": "a majority of its replicas must be up; `rakit cluster status` shows the nodes",
    "NO_QUORUM": "a majority of the nodes must be up; `rakit cluster status` shows them",
    "OFFSET_OUT_OF_RANGE": "`rakit topic get NAME` shows the offsets",
    "NO_SPACE": "free space on the disk of the node, or shorten the retention of topics",
}


def finish(work: Coroutine[None, None, int]) -> NoReturn:
    """Runs a command to its end and exits with its code."""
    sys.exit(run(work))


def run(work: Coroutine[None, None, int]) -> int:
    """Runs a command to its end and returns its exit code."""
    try:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            return runner.run(_until_signal(work))
    except RakitError as error:
        complain(explain(error))
    except (CommandError, OSError) as error:
        complain(str(error))
    except (KeyboardInterrupt, asyncio.CancelledError):
        complain("interrupted")
    return FAILED


async def _until_signal(work: Coroutine[None, None, int]) -> int:
    task = asyncio.ensure_future(work)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, task.cancel)
    return await task


def explain(error: RakitError) -> str:
    """Returns an error as one line that says what to do."""
    text = f"{error.message.rstrip('.')} ({error.reason})"
    advice = _ADVICE.get(error.reason)
    if advice is not None:
        text += f"; {advice}"
    return text + ("; it may have taken effect" if error.maybe_applied and not advice else "")
