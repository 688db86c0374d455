"""What a person reads about a run that has failed: what came before, how things stand, what broke.

First the last events that concern the group of the failure, with those that concern everybody
(crashes, cuts, clocks), and without heartbeats; then each replica of the group as its node and its
disk have it; and last the promise that was broken, in one sentence, with the facts. Whoever reads
from the end upwards has the important things first.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rakit.multiraft import keys
from rakit.multiraft.effects import RoleChange
from rakit.multiraft.group import Group
from rakit.multiraft.machine import node_of
from rakit.raft.describe import conf_state_text, message_text
from rakit.raft.types import Message, MessageType
from tests.sim.disk import SimDisk
from tests.sim.node import SimNode
from tests.sim.records import entry_term, hard_state_of
from tests.sim.violations import ViolationError

if TYPE_CHECKING:
    from tests.sim.world import World

EVENT_LINES = 60
TAIL_ENTRIES = 12
TEXT_CHARS = 200  # of a message
_GROUP = re.compile(r"group (\d+)")


def report(world: World, error: BaseException, lines: int = EVENT_LINES) -> list[str]:
    """Returns the text, line by line."""
    found = _GROUP.search(str(error))
    group_id = int(found[1]) if found else 0
    about = f"group {group_id}" if group_id else "every group"
    groups = [group_id] if group_id else sorted(world.members.groups)
    return [
        f"--- the last events of {about}",
        *_events(world, group_id, lines),
        f"--- replicas at {world.events.now_ms} ms",
        *(line for one in groups for line in replicas(world, one)),
        f"--- seed {world.seed}: {world.plan}",
        f"    hazards: {', '.join(one.name for one in world.hazards.kinds) or 'none'}",
        f"--- broken at {world.events.now_ms} ms, step {world.steps}: {sentence(error)}",
    ]


def sentence(error: BaseException) -> str:
    """What was promised, and what is the case instead."""
    if isinstance(error, ViolationError):
        name = error.invariant.name
        fact = str(error).removeprefix(f"{name}: ")
        return f"{name}, which says that {error.invariant.value}. But {fact}"
    return f"{type(error).__name__}: {error}"


def _events(world: World, group_id: int, lines: int) -> list[str]:
    chosen = [
        one
        for one in world.trace or ()
        if (not group_id or one[1] in {0, group_id}) and not any(map(_is_pulse, one[2]))
    ]
    return [_event(*one) for one in chosen[-lines:]]


def _event(at_ms: int, group_id: int, words: tuple[object, ...]) -> str:
    return f"{at_ms:>6} {f'group {group_id}' if group_id else '':<9}" + " ".join(map(_word, words))


def _is_pulse(word: object) -> bool:
    pulses = {MessageType.HEARTBEAT, MessageType.HEARTBEAT_RESP}
    return isinstance(word, Message) and word.type in pulses


def _word(word: object) -> str:
    if not isinstance(word, Message):
        return str(word)
    # The nodes stand before it; replica ids say the same at length. Payloads are no text.
    text = message_text(word).partition(" ")[2].encode("unicode_escape").decode()[:TEXT_CHARS]
    return re.sub(r"\b\d{8,}\b", lambda match: f"n{node_of(int(match[0]))}", text)


def role_words(node_id: int, change: RoleChange) -> tuple[object, ...]:
    """A change of role, for the trace."""
    leader = f"n{node_of(change.leader_replica)}" if change.leader_replica else "nobody"
    ready = ", ready" if change.ready else ""
    return (f"node {node_id} is {change.role.name} in term {change.term}, leader {leader}{ready}",)


def replicas(world: World, group_id: int) -> Iterator[str]:
    """How each node has a group: by its driver if it is up, and by its disk."""
    for node_id, node in sorted(world.nodes.items()):
        group = node.driver.group(group_id) if node.driver is not None else None
        if group is None and keys.birth(group_id) not in node.disk.durable.rows:
            continue  # it has nothing of the group
        yield f"  group {group_id} node {node_id}: {_state(world, node, group_id, group)}"
        yield f"      synced {_on_disk(node.disk, group_id)}"


def _state(world: World, node: SimNode, group_id: int, group: Group | None) -> str:
    if node.driver is None:
        return "down"
    if group is None:
        shut_out = node.driver.quarantined.get(group_id)
        return "no replica" if shut_out is None else f"shut out: {shut_out.reason}"
    marks = {
        "ready": group.ready,
        "quiet": group.quiet,
        "in doubt": group.doubtful,
        "paused": node.paused_until_ms > world.events.now_ms,
        "slow": node.busy_until_ms > world.events.now_ms,
        "write held": node.held is not None,
        "sync under way": node.syncing,
    }
    leader = f"n{node_of(group.leader_replica)}" if group.leader_replica else "nobody"
    voters = re.sub(
        r"\d{8,}", lambda m: f"n{node_of(int(m[0]))}", conf_state_text(group.conf_state)
    )
    return (
        f"{group.role.name} term {group.term}, leader {leader}, commit {group.commit}, applied"
        f" {group.applied}, log {group.storage.first_index()} to {group.storage.last_index()},"
        f" {voters} {', '.join(name for name, is_so in marks.items() if is_so)}"
    )


def _on_disk(disk: SimDisk, group_id: int) -> str:
    rows = disk.durable.rows
    state = rows.get(keys.hard_state(group_id))
    lo, hi = keys.group_range(keys.ENTRY, group_id)
    entries = [(keys.number_of(key), entry_term(rows[key])) for key in rows if lo <= key < hi]
    tail = " ".join(f"{term}/{index}" for index, term in sorted(entries)[-TAIL_ENTRIES:])
    if state is None:
        return f"no vote record; entries (term/index) {tail or 'none'}"
    known = hard_state_of(group_id, state)
    vote = f"n{node_of(known.vote)}" if known.vote else "nobody"
    return (
        f"term {known.term}, vote {vote}, commit {known.commit};"
        f" entries (term/index) {tail or 'none'}"
    )
