"""Text for people: one line for each message, entry and state, as golden files and dumps show them.

Stable on purpose: scripts compare it. Fields that are empty are left out, so that a line says what
matters. Order and names follow the types.
"""

from __future__ import annotations

from rakit.raft.errors import MalformedConfChangeError
from rakit.raft.status import PeerStatus
from rakit.raft.types import (
    ConfChange,
    ConfState,
    DropKind,
    Dropped,
    Entry,
    EntryType,
    HardState,
    Message,
    MessageType,
    Payload,
    Ready,
    SoftState,
)

_PAYLOAD_SHOWN_BYTES = 24


def entry_text(entry: Entry) -> str:
    """Returns `term/index payload`."""
    head = f"{entry.term}/{entry.index}"
    if entry.type is EntryType.CONF_CHANGE:
        try:
            return f"{head} conf[{conf_change_text(ConfChange.decode(bytes(entry.data)))}]"
        except MalformedConfChangeError as error:
            return f"{head} conf[malformed: {error}]"
    return f"{head} {_payload(entry.data)}" if entry.data else head


def _payload(data: Payload) -> str:
    text = bytes(data[:_PAYLOAD_SHOWN_BYTES]).decode("ascii", "backslashreplace")
    rest = len(data) - _PAYLOAD_SHOWN_BYTES
    return f'"{text}"' if rest <= 0 else f'"{text}"+{rest}'


def entries_text(entries: list[Entry] | tuple[Entry, ...]) -> str:
    """Returns the entries in brackets."""
    return "[" + ", ".join([entry_text(entry) for entry in entries]) + "]"


def conf_change_text(change: ConfChange) -> str:
    """Returns the steps of a change, or that it leaves a joint configuration."""
    if change.leaves_joint:
        return "leave joint"
    steps = [f"{step.type.name.lower()} {step.replica_id}" for step in change.changes]
    return f"{', '.join(steps)}; {change.transition.name.lower()}"


def conf_state_text(state: ConfState) -> str:
    """Returns a configuration by its non-empty parts."""
    parts = [f"voters={_ids(state.voters)}"]
    if state.voters_outgoing:
        parts.append(f"outgoing={_ids(state.voters_outgoing)}")
    if state.learners:
        parts.append(f"learners={_ids(state.learners)}")
    if state.learners_next:
        parts.append(f"learners_next={_ids(state.learners_next)}")
    if state.auto_leave:
        parts.append("auto_leave")
    return " ".join(parts)


def _ids(ids: tuple[int, ...]) -> str:
    return "(" + " ".join([str(id_) for id_ in ids]) + ")"


def message_text(message: Message) -> str:
    """Returns `from->to KIND` and the fields that the kind uses."""
    parts = [f"{message.from_}->{message.to} {message.type.name}"]
    if message.term:
        parts.append(f"term={message.term}")
    if message.type is MessageType.APP:
        parts.append(f"prev={message.log_term}/{message.index}")
    elif message.type in (MessageType.VOTE, MessageType.PRE_VOTE):
        parts.append(f"last={message.log_term}/{message.index}")
    elif message.index:
        parts.append(f"index={message.index}")
    if message.reject:
        parts.append("reject")
        if message.type is MessageType.APP_RESP:
            parts.append(f"hint={message.log_term}/{message.reject_hint}")
    if message.commit:
        parts.append(f"commit={message.commit}")
    if message.entries:
        parts.append(entries_text(message.entries))
    if message.snapshot is not None:
        base = message.snapshot
        parts.append(f"base={base.term}/{base.index} {conf_state_text(base.conf_state)}")
    if message.context:
        parts.append(f"context={_context(message.context)}")
    return " ".join(parts)


def _context(context: bytes) -> str:
    return context.decode("ascii") if context.isalnum() and context.isascii() else context.hex()


def hard_state_text(state: HardState) -> str:
    """Returns a vote record."""
    return f"term={state.term} vote={state.vote} commit={state.commit}"


def soft_state_text(state: SoftState) -> str:
    """Returns role and leader."""
    return f"{state.role.name} lead={state.lead}"


def dropped_text(dropped: Dropped) -> str:
    """Returns what will not be answered."""
    if dropped.kind is DropKind.READ:
        return f"read {_context(dropped.context)}"
    return f"proposals of term {dropped.term} above {dropped.index}"


def ready_text(ready: Ready) -> list[str]:
    """Returns a Ready line by line, in the order in which it is to be done."""
    lines = [f"ready {ready.number}{' sync' if ready.must_sync else ''}"]
    if ready.soft_state is not None:
        lines.append(f"  role {soft_state_text(ready.soft_state)}")
    lines += [f"  send {message_text(message)}" for message in ready.messages]
    if ready.snapshot is not None:
        base = ready.snapshot
        state = conf_state_text(base.conf_state)
        lines.append(f"  install base {base.term}/{base.index} {state}")
    if ready.entries:
        lines.append(f"  write {entries_text(ready.entries)}")
    if ready.hard_state is not None:
        lines.append(f"  write {hard_state_text(ready.hard_state)}")
    lines += [f"  then send {message_text(message)}" for message in ready.messages_after_persist]
    if ready.committed_entries:
        lines.append(f"  apply {entries_text(ready.committed_entries)}")
    lines += [f"  read {_context(read.context)} at {read.index}" for read in ready.read_states]
    lines += [f"  drop {dropped_text(dropped)}" for dropped in ready.dropped]
    return lines


def peer_text(peer: PeerStatus) -> str:
    """Returns a member as its leader sees it."""
    parts = [f"{peer.id}: {peer.state.name} match={peer.match} next={peer.next}"]
    if peer.is_learner:
        parts.append("learner")
    if peer.paused:
        parts.append("paused")
    if peer.pending_snapshot:
        parts.append(f"base={peer.pending_snapshot}")
    if not peer.recent_active:
        parts.append("silent")
    if peer.inflight_messages:
        parts.append(f"inflight={peer.inflight_messages}")
    if peer.doubtful:
        parts.append("doubtful")
    if peer.lost_log:
        parts.append("lost-log")
    return " ".join(parts)
