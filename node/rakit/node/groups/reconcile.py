"""The next change of a group: from what is replicated and asked for, and the topics that there are.

Pure. The coordinator puts the change into an entry; what is decided here is decided on the applied
state, and applied only to that (`expected_epoch`).

Rules:

- P5: nobody is given a partition that somebody else owns. What is to move is first let go of by its
  owner, or freed by its owner's end.
- Whoever owns a partition which it is not to have in the end has it revoked; until it lets go, it
  owns it.
- A member whose partitions stay as they are hears nothing: its epoch, which is its version, changes
  only with what it owns, what is revoked from it, or what it asked for.
- A member that takes another one's place (`replaces`) has its partitions at once, under a new
  epoch: the caller knows that nobody serves the other one any more.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from rakit.node.groups.assignor import Member, assign
from rakit.node.groups.state import Group, Key, key_of
from rakit.node.groups.subscriptions import View
from rakit.peer.v1.group_command_pb2 import GroupChange, MemberRecord, OwnedPartition


@dataclass(slots=True)
class Wishes:
    """What is asked of one group's next change."""

    #: Members that come, or ask for something else; what they own and are to own is not looked at.
    joins: dict[str, MemberRecord] = field(default_factory=dict[str, MemberRecord])
    #: New member id to the one that it takes the place of.
    replaces: dict[str, str] = field(default_factory=dict[str, str])
    leaves: set[str] = field(default_factory=set[str])
    #: (partition, since which epoch it was owned) that members let go of.
    releases: dict[str, set[tuple[Key, int]]] = field(
        default_factory=dict[str, set[tuple[Key, int]]]
    )
    #: Topics may have come, gone or grown.
    topics_changed: bool = False


def revoking(member: MemberRecord) -> list[OwnedPartition]:
    """What a member owns and is not to have in the end."""
    target = {key_of(each) for each in member.target}
    return [each for each in member.owned if key_of(each) not in target]


def next_change(name: str, group: Group | None, wishes: Wishes, view: View) -> GroupChange | None:
    """The change that brings the group one step on; None where there is nothing to do."""
    known = {} if group is None else group.members
    epoch = 0 if group is None else group.epoch
    drafts = _drafts(known, wishes)
    owned = _owned(drafts, {} if group is None else group.owners)
    changed = wishes.topics_changed or wishes.joins or wishes.replaces or wishes.leaves
    if changed:
        targets = _set_targets(drafts, owned, view)
    else:
        targets = {member_id: _keys(draft.target) for member_id, draft in drafts.items()}
    _grant(drafts, owned, targets, epoch + 1)
    members: list[MemberRecord] = []
    for member_id, draft in sorted(drafts.items()):
        was = known.get(member_id)
        if draft is was:
            continue
        if was is None or _concerns(was, draft):
            draft.epoch = epoch + 1
        if draft != was:
            members.append(draft)
    removed = sorted(known.keys() - drafts.keys())
    if not members and not removed:
        return None
    return GroupChange(
        group=name,
        expected_epoch=epoch,
        epoch=epoch + 1,
        members=members,
        removed_member_ids=removed,
    )


class _Drafts(dict[str, MemberRecord]):
    """The members as they are to be: the records as they are, until one is to be changed.

    Of a thousand members a change concerns a few, and records are never changed in place.
    """

    def __init__(self, known: Mapping[str, MemberRecord]) -> None:
        super().__init__(known)
        self._known = known

    def own(self, member_id: str) -> MemberRecord:
        """The member's record, to be changed."""
        draft = self[member_id]
        if self.stays(member_id):
            self[member_id] = copy = MemberRecord()
            copy.CopyFrom(draft)
            return copy
        return draft

    def stays(self, member_id: str) -> bool:
        """Whether the member's record is the one that it has."""
        return member_id in self and self[member_id] is self._known.get(member_id)


def _drafts(known: Mapping[str, MemberRecord], wishes: Wishes) -> _Drafts:
    """The members as they are to be, but for targets and grants."""
    drafts = _Drafts(known)
    for member_id in wishes.leaves - set(wishes.replaces.values()):
        drafts.pop(member_id, None)
    for member_id, asked in wishes.joins.items():
        was = drafts.get(member_id)
        draft = drafts[member_id] = MemberRecord()
        draft.CopyFrom(asked)
        del draft.owned[:]
        del draft.target[:]
        draft.epoch = 0 if was is None else was.epoch
        former: MemberRecord | None = drafts.pop(wishes.replaces.get(member_id, ""), None)
        if former is not None:
            # Without the old epochs: what is granted below is owned since now.
            draft.target.extend(_plain(key_of(each)) for each in (*former.target, *former.owned))
        elif was is not None:
            draft.owned.extend(was.owned)
            draft.target.extend(was.target)
    for member_id, released in wishes.releases.items():
        if released and member_id in drafts:
            holder = drafts.own(member_id)
            kept = [one for one in holder.owned if (key_of(one), one.since_epoch) not in released]
            del holder.owned[:]
            holder.owned.extend(kept)
    return drafts


def _owned(drafts: _Drafts, owners: Mapping[Key, tuple[str, int]]) -> defaultdict[str, list[Key]]:
    """What each member owns, until something is granted."""
    owned: defaultdict[str, list[Key]] = defaultdict(list)
    for key, (member_id, _) in owners.items():
        owned[member_id].append(key)
    for member_id in [each for each in owned if not drafts.stays(each)]:
        del owned[member_id]
    for member_id, draft in drafts.items():
        if not drafts.stays(member_id):
            owned[member_id] = [*_keys(draft.owned)]
    return owned


def _set_targets(
    drafts: _Drafts, owned: Mapping[str, list[Key]], view: View
) -> dict[str, tuple[Key, ...]]:
    """Gives everybody the target that it is to have; returns them."""
    members = [
        Member(
            member_id=member_id,
            subscribed=view.resolve(draft),
            rack=draft.rack,
            target=_keys(draft.target),
            owned=tuple(owned.get(member_id, ())),
        )
        for member_id, draft in drafts.items()
    ]
    plan = assign(members, view.topics)
    for member in members:
        keys = plan[member.member_id]
        if keys != member.target:
            draft = drafts.own(member.member_id)
            del draft.target[:]
            draft.target.extend(_plain(key) for key in keys)
    return plan


def _grant(
    drafts: _Drafts,
    owned: Mapping[str, list[Key]],
    targets: Mapping[str, tuple[Key, ...]],
    epoch: int,
) -> None:
    """Gives everybody what it is to have and nobody owns."""
    taken = {key for keys in owned.values() for key in keys}
    for member_id, target in targets.items():
        if not taken.issuperset(target):
            mine = drafts.own(member_id)
            now = {key_of(each): each for each in mine.owned}
            now |= {key: _plain(key, epoch) for key in target if key not in taken}
            del mine.owned[:]
            mine.owned.extend(now[key] for key in sorted(now))


def _concerns(was: MemberRecord, draft: MemberRecord) -> bool:
    """Whether the member must hear of the change."""
    asked = MemberRecord()
    asked.CopyFrom(draft)
    # What it is to get later is no news until it gets it.
    del asked.target[:]
    asked.target.extend(was.target)
    return asked != was or revoking(was) != revoking(draft)


def _plain(key: Key, since_epoch: int = 0) -> OwnedPartition:
    return OwnedPartition(topic_id=key[0], partition=key[1], since_epoch=since_epoch)


def _keys(partitions: Iterable[OwnedPartition]) -> tuple[Key, ...]:
    return tuple(key_of(each) for each in partitions)
