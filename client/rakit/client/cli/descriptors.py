"""Standard streams that the caller has closed (`<&-`, `>&-`): using one is an error, no more.

Without this the next file that is opened gets its number, and the event loop aborts the process
when it is to close one of the first three.
"""

from __future__ import annotations

import os
import sys
from typing import Final

#: In the order of their numbers. Stdin may be written and stdout read, so that whoever uses one is
#: told that it cannot be; what goes to stderr is lost, for there is nobody left to tell.
_FLAGS: Final = (os.O_WRONLY, os.O_RDONLY, os.O_WRONLY)


def open_closed_streams() -> None:
    """Puts something in the place of each stream that is closed."""
    for number, flags in enumerate(_FLAGS):
        try:
            os.fstat(number)
        except OSError:
            # The lowest number that is free is this one.
            opened = os.open(os.devnull, flags)
            assert opened == number, f"{os.devnull} got {opened} in place of {number}"
            # A node that is started here must not fall into the same trap.
            os.set_inheritable(number, True)
    # Python leaves out what was closed when it started.
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)
