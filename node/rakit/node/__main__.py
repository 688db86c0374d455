"""`python -m rakit.node`: refuses what must not run, sets what must be set early, starts the node.

The node refuses to run without asserts (`python -O`): they are what stops a bug before it reaches
the disk.
"""

from __future__ import annotations

import os
import sys

if not __debug__:
    sys.stderr.write(
        "rakit: python runs with -O (or PYTHONOPTIMIZE), which removes the checks that protect the"
        " data; start it without\n"
    )
    sys.exit(2)

# gRPC reads these when it is imported. It would log every goodbye of a peer, and prepare for forks,
# which a process with this many threads never does.
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

from rakit.node.command import main

# The syncer thread reports a finished flush under the interpreter's lock; by default it may have to
# wait 5 ms for a busy loop to let go of it, which is longer than the flush.
SWITCH_INTERVAL_S = 0.0005

# glibc takes what is large from the system and gives it back at once, in fresh pages each time, a
# third of what reading costs, until it sees something larger given back that nobody has touched
# (M_MMAP_THRESHOLD in mallopt(3)). Then what is freed up to this size is used again, and twice as
# much stays at the end of each heap: gRPC takes the messages of a producer from there.
KEPT_BYTES = 8 << 20

if __name__ == "__main__":
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    bytes(KEPT_BYTES)
    sys.exit(main(sys.argv[1:]))
