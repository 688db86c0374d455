"""One measurement: `python -m tests.bench.worker JSON` prints one line of JSON.

A process of its own for each, so that no measurement finds what another left in its client, and so
that whatever happens to a client ends one measurement only. SIGTERM and SIGINT end it in order: its
nodes go first.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path

from uvloop import new_event_loop

from rakit.client.bench.collector import calm
from tests.bench.measuring import Timing, measure
from tests.bench.systems import SYSTEMS
from tests.bench.works import work


async def run(order: dict[str, str | float]) -> dict[str, object]:
    """Carries one order out; an error is an answer."""
    task = asyncio.current_task()
    assert task is not None, "run() runs as a task"
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    calm()
    try:
        figures = await measure(
            SYSTEMS[str(order["system"])],
            work(str(order["work"])),
            str(order["setting"]),
            Path(str(order["directory"])),
            Timing(float(order["seconds"]), float(order["warm_s"])),
        )
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}
    return {"figures": figures}


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        answer = runner.run(run(json.loads(sys.argv[1])))
    sys.stdout.write(json.dumps(answer) + "\n")
