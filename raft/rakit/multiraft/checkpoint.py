"""A group's state as of one index, from which its log continues (safety S1)."""

from __future__ import annotations

from dataclasses import dataclass

from rakit.raft import ConfState


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Everything that holds as of the entry at `index` and nothing newer."""

    index: int
    term: int
    conf_state: ConfState
    data: bytes
