"""Runs a command's coroutine and turns its end into an exit code: 0 done, 1 failed, 2 misuse.

An error becomes one line on stderr that says what went wrong and what to do about it. Ctrl-C,
SIGTERM and SIGHUP cancel the coroutine, so that everything it opened is closed, nodes included, and
leave no traceback. Whoever reads our output may stop reading: that is an end like any other.
"""

from __future__ import annotations

import asyncio
import errno
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import Final, NoReturn

from rakit.client.cli.complaints import CommandError, MisuseError, complain
from rakit.client.errors import RakitError

if sys.platform == "linux":
    from uvloop import new_event_loop
else:
    from asyncio import new_event_loop

FAILED: Final = 1
MISUSE: Final = 2
_ADVICE: Final = {
    "UNREACHABLE": "is a node running there? `rakit dev` starts one; --bootstrap or"
    " RAKIT_BOOTSTRAP says where to look",
    "DELIVERY_TIMEOUT": "`rakit cluster status` shows the nodes, `rakit topic get NAME` the"
    " leaders",
    "DEADLINE": "the node hangs or is overloaded; `rakit cluster status` tells more",
    "UNKNOWN_TOPIC": "`rakit topic list` shows the topics, `rakit topic create NAME` makes one",
    "TOPIC_EXISTS": "`rakit topic get NAME` shows it, `rakit topic update NAME` changes it",
    "REPLICATION_FACTOR_TOO_LARGE": "`rakit cluster status` shows the nodes",
    "NO_LEADER": "a majority of its replicas must be up; `rakit cluster status` shows the nodes",
    "NO_QUORUM": "a majority of the nodes must be up; `rakit cluster status` shows them",
    "UNKNOWN_GROUP": "`rakit group list` shows the groups",
    "GROUP_ACTIVE": "stop its members first; `rakit group get GROUP` shows them",
    "OFFSET_OUT_OF_RANGE": "`rakit topic get NAME` shows the offsets",
    "NO_SPACE": "free space on the disk of the node, or shorten the retention of topics",
}


def or_misuse(work: Callable[[], None]) -> None:
    """Does something before the command begins; what is wrong with it ends the command."""
    try:
        work()
    except MisuseError as error:
        complain(str(error))
        sys.exit(MISUSE)


def finish(work: Coroutine[None, None, int], *, is_change: bool = False) -> NoReturn:
    """Runs a command to its end and exits with its code."""
    sys.exit(run(work, is_change=is_change))


def run(work: Coroutine[None, None, int], *, is_change: bool = False) -> int:
    """Runs a command to its end and returns its exit code."""
    try:
        with asyncio.Runner(loop_factory=new_event_loop) as runner:
            code = runner.run(_until_signal(work))
        sys.stdout.flush()
    except RakitError as error:
        complain(explain(error, is_change=is_change))
    except MisuseError as error:
        complain(str(error))
        return MISUSE
    except CommandError as error:
        complain(str(error))
    except OSError as error:
        _let_go_of_stdout()
        if isinstance(error, BrokenPipeError):
            return 0
        closed = error.errno == errno.EBADF
        complain("stdin or stdout is closed" if closed else str(error))
    except (KeyboardInterrupt, asyncio.CancelledError):
        complain("interrupted")
    else:
        return code
    return FAILED


def _let_go_of_stdout() -> None:
    """Forgets what cannot be written: the interpreter would try again at its end, and complain."""
    try:
        sys.stdout.flush()
    except OSError:
        # What the standard library has there when there is no stdout.
        sys.stdout = None  # pyright: ignore[reportAttributeAccessIssue]


async def _until_signal(work: Coroutine[None, None, int]) -> int:
    task = asyncio.ensure_future(work)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, task.cancel)
    # `nohup` means what it says.
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        loop.add_signal_handler(signal.SIGHUP, task.cancel)
    return await task


def explain(error: RakitError, *, is_change: bool) -> str:
    """Returns an error as one line that says what to do, and what became of a change."""
    text = f"{error.message.rstrip('.')} ({error.reason})"
    advice = _ADVICE.get(error.reason)
    if advice is not None:
        text += f"; {advice}"
    return text + ("; it may have taken effect" if is_change and error.maybe_applied else "")
