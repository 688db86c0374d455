"""Groups that rest, and what must wake them (S15)."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from unittest.mock import patch

from rakit.multiraft.group import Group
from rakit.multiraft.succession import Succession
from tests.sim.plants import bug
from tests.sim.violations import Invariant


@contextmanager
def _quiet_groups_do_not_see(hint: str) -> Generator[None]:
    original, members_on = getattr(Succession, hint), Succession._members_on

    def awake(self: Succession, node_id: int) -> Iterator[tuple[Group, int]]:
        return (found for found in members_on(self, node_id) if not found[0].quiet)

    def hinted(self: Succession, node_id: int) -> None:
        with patch.object(Succession, "_members_on", awake):
            original(self, node_id)

    with patch.object(Succession, hint, hinted):
        yield


@bug(Invariant.REST)
def a_quiet_group_does_not_notice_that_a_node_is_down() -> Generator[None]:
    """It goes on resting without a leader."""
    with _quiet_groups_do_not_see("node_down"):
        yield
