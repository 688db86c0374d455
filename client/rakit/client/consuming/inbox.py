"""What was received and not handed over, with the credit that it takes.

The server sends no more than was granted, so the inbox is bounded by the credit of the join, and by
one batch where that alone is larger. Credit is given back when records are done with or dropped, in
a few large grants. When nothing is here any more all of it is given back: it tells the server that
the program goes on, which a member without commits has no other way to say.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from rakit.client.consuming.places import Place, Received
from rakit.client.errors import RakitError


class Inbox:
    """Between the stream and the program. One consumer takes from it."""

    def __init__(self, window_bytes: int, grant_due: Callable[[], None]) -> None:
        self._window_bytes = window_bytes
        # A grant for every batch would be a message for every message.
        self._grant_bytes_min = max(1, window_bytes // 4)
        self._grant_due = grant_due
        self._owed_bytes = 0
        #: What was received and is not done with, in the measure of the credit.
        self.charged_bytes = 0
        self._received: deque[Received] = deque()
        self._changed = asyncio.Event()
        self._error: Exception | None = None
        self._is_ended = False

    def charge(self, charged_bytes: int) -> None:
        """Something was received."""
        self.charged_bytes += charged_bytes

    def put(self, received: Received) -> None:
        """Takes a batch in; that of a partition whose owner was not told yet waits for that."""
        place = received.place
        if not place.is_open:
            place.early.append(received)
            return
        self._received.append(received)
        self._changed.set()

    def open(self, place: Place) -> None:
        """The program knows of the partition: what came before follows."""
        place.is_open = True
        early, place.early = place.early, []
        for received in early:
            self.put(received)

    def purge(self, place: Place) -> None:
        """Drops what there is of a partition."""
        dropped = [*place.early, *(each for each in self._received if each.place is place)]
        place.early = []
        self._received = deque(each for each in self._received if each.place is not place)
        self.give_back(sum(each.charged_bytes for each in dropped))

    def give_back(self, charged_bytes: int) -> None:
        """Records are done with, or dropped: their credit goes back to the server."""
        self.charged_bytes -= charged_bytes
        self._owed_bytes += charged_bytes
        if self._is_grant_due:
            self._grant_due()

    @property
    def _is_grant_due(self) -> bool:
        at_least = self._grant_bytes_min if self.charged_bytes else 1
        return self._owed_bytes >= at_least

    def take_grant(self) -> int:
        """Returns what is to be granted now; 0 while it is not worth a message."""
        if not self._is_grant_due:
            return 0
        owed, self._owed_bytes = self._owed_bytes, 0
        return owed

    def begin(self) -> int:
        """Returns the credit that a new stream begins with: the window less what is still here."""
        left = self._window_bytes - self.charged_bytes
        credit = max(1, left)
        # Where more is here than the window, what it gives back is granted less by that.
        self._owed_bytes = left - credit
        return credit

    def end(self, error: Exception | None = None) -> None:
        """Nothing follows. Without an error, what is here is dropped, too."""
        if self._is_ended:
            return
        self._is_ended = True
        self._error = error
        if error is None:
            self._received.clear()
        self._changed.set()

    async def get(self) -> Received | None:
        """Returns the next batch; None at the end. Raises what ended it, after what came before."""
        while not self._received:
            if self._is_ended:
                if self._error is None:
                    return None
                error = self._error
                raise error.again() if isinstance(error, RakitError) else error
            self._changed.clear()
            await self._changed.wait()
        return self._received.popleft()
