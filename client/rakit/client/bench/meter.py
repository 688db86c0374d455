"""Counts what a producer gets acknowledged, and how long each acknowledgement took.

An acknowledgement that is an error would make every figure worthless, so the first one is kept and
raised when the run is over or looks at it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from rakit.client.errors import RakitError
from rakit.client.producing.batch import Delivery


@dataclass(slots=True)
class Meter:
    """Acknowledgements so far."""

    records: int = 0
    # Seconds from the call to the acknowledgement, while `is_recording`.
    latencies_s: list[float] = field(default_factory=list[float])
    is_recording: bool = False
    error: RakitError | None = None

    def watch(self, delivery: Delivery, records: int, since_s: float) -> None:
        """Counts a delivery once it is acknowledged; it stands for so many records."""
        delivery.add_done_callback(partial(self._counted, records, since_s))

    def then(self, delivery: Delivery, acknowledged: Callable[[], None]) -> None:
        """Calls `acknowledged` once a delivery is; an error is only kept."""

        def ended(ended: Delivery) -> None:
            if self._is_good(ended):
                acknowledged()

        delivery.add_done_callback(ended)

    def check(self) -> None:
        """Raises the first error that was acknowledged instead of a success."""
        if self.error is not None:
            raise self.error.again()

    def _counted(self, records: int, since_s: float, delivery: Delivery) -> None:
        if self._is_good(delivery):
            self.records += records
            if self.is_recording:
                self.latencies_s.append(time.perf_counter() - since_s)

    def _is_good(self, delivery: Delivery) -> bool:
        try:
            delivery.result()
        except RakitError as error:
            self.error = self.error or error
            return False
        return True
