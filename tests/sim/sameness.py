"""Replicas are the same, byte for byte: what each writes of its state is compared (P9).

The log itself is compared by `Checker`: an index and a term name one content. Here it is what
replicas make of it, as they write it: checkpoints, which hold the whole state as of an index, and
position rows, which lookups begin with. The first replica to write one sets the measure, for ever:
whoever restarts, gets a base, or joins later has to write the same.
"""

from __future__ import annotations

from rakit.multiraft import keys
from rakit.multiraft.records import decode_checkpoint
from tests.sim.violations import Invariant, ViolationError


class Sameness:
    """What replicas have written of their states."""

    def __init__(self) -> None:
        self._checkpoints: dict[tuple[int, int], tuple[int, object, bytes]] = {}
        self._positions: dict[bytes, bytes] = {}

    def wrote_checkpoint(self, node_id: int, key: bytes, value: bytes) -> None:
        group_id, index = keys.group_of(key), keys.number_of(key)
        written = decode_checkpoint(group_id, index, value).checkpoint
        state = (written.term, written.conf_state, written.data)
        if self._checkpoints.setdefault((group_id, index), state) != state:
            raise ViolationError(
                Invariant.IDENTICAL,
                f"group {group_id}: node {node_id} wrote another checkpoint as of {index} than the"
                " replica that came first",
            )

    def wrote_position(self, node_id: int, key: bytes, value: bytes) -> None:
        if self._positions.setdefault(key, value) != value:
            raise ViolationError(
                Invariant.IDENTICAL,
                f"group {keys.group_of(key)}: node {node_id} wrote another position of offset"
                f" {keys.number_of(key)} than the replica that came first",
            )
