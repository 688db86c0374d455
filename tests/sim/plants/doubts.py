"""Replicas that lost what they had promised (S8; the rules are in `rakit.raft.doubt`)."""

from __future__ import annotations

from collections.abc import Generator
from unittest.mock import patch

from rakit.multiraft import quarantine
from rakit.multiraft.driver_config import DriverConfig
from rakit.multiraft.kv import WriteBatch
from rakit.multiraft.quarantine import Quarantined
from rakit.raft import Message, doubt, follower, messages
from rakit.raft.state import Raft
from rakit.raft.tracker import Progress
from tests.sim.plan import Topic
from tests.sim.plants import bug
from tests.sim.violations import Invariant


@bug(Invariant.NO_DAMAGE, Topic.CUTS)
def what_lost_its_tail_is_trusted() -> Generator[None]:
    """A vote without the entries that it had promised."""
    original = DriverConfig.__post_init__

    def post_init(self: DriverConfig) -> None:
        original(self)
        object.__setattr__(self, "doubtful", False)

    with patch.object(DriverConfig, "__post_init__", post_init):
        yield


@bug(Invariant.LEADER_COMPLETENESS, Topic.CUTS)
def acknowledgements_in_doubt_count() -> Generator[None]:
    """They vouch for what another leader may replace."""
    original = doubt.admit

    def admit(raft: Raft, message: Message, progress: Progress) -> bool:
        admitted = original(raft, message, progress)
        progress.counts = True
        return admitted

    with patch.object(doubt, "admit", admit):
        yield


@bug(Invariant.REST, Topic.CUTS)
def what_was_acknowledged_before_a_loss_is_believed() -> Generator[None]:
    """The leader never sends it again."""

    def restart(self: Progress) -> None:
        del self

    with patch.object(Progress, "restart", restart):
        yield


@bug(Invariant.SHUT_OUT, Topic.DAMAGE)
def what_is_shut_out_is_forgotten_by_a_restart() -> Generator[None]:
    """A replica that had lost its log votes again (ours)."""

    # Our own: a replica without entries that it had acknowledged came back and voted them away.
    def note(group_id: int, replica: Quarantined, batch: WriteBatch) -> None:
        del group_id, replica, batch

    with patch.object(quarantine, "note", note):
        yield


@bug(Invariant.STATE_MACHINE_SAFETY, Topic.CUTS)
def a_doubt_ends_at_once() -> Generator[None]:
    """Before anybody knows what was lost."""

    def absolution(progress: Progress, committed: int) -> bytes:
        del committed
        return messages.encode_boot(progress.boot) if progress.doubtful else b""

    with patch.object(doubt, "absolution", absolution):
        yield


@bug(Invariant.STATE_MACHINE_SAFETY, Topic.CUTS)
def a_commit_index_is_believed_in_doubt() -> Generator[None]:
    """What had been replaced is back, and is applied."""
    original = follower.handle_heartbeat

    def handle_heartbeat(raft: Raft, message: Message) -> None:
        if raft.doubtful and message.commit <= raft.log.last_index:
            raft.log.commit_to(message.commit)
        original(raft, message)

    with patch.object(follower, "handle_heartbeat", handle_heartbeat):
        yield


@bug(Invariant.REST, Topic.CUTS)
def the_word_that_ends_a_doubt_is_said_once() -> Generator[None]:
    """It is lost, and the doubt lasts."""
    original = doubt.absolution
    said: set[tuple[int, int]] = set()

    def absolution(progress: Progress, committed: int) -> bytes:
        word = original(progress, committed)
        key = (id(progress), progress.boot)
        if word and key in said:
            return b""
        if word:
            said.add(key)
        return word

    with patch.object(doubt, "absolution", absolution):
        yield
