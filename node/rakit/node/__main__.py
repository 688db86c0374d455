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

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
