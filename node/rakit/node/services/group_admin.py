"""The unary calls of GroupService: commits, groups as they are, lists, deletion, resets.

What a group is, its coordinator says, linearizable; how far it is behind, the leaders of the
partitions. "There is no such group" is said only after a majority was asked (S22).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from rakit.api.v1 import error_pb2
from rakit.api.v1 import group_service_pb2 as api
from rakit.api.v1.header_pb2 import ResponseHeader
from rakit.api.v1.log_service_pb2 import EDGE_LATEST, Edge, PartitionOffsets
from rakit.node.errors import RakitError, to_status
from rakit.node.groups.client import GroupClient, refusal
from rakit.node.groups.names import check_group_name
from rakit.node.groups.ranges import check_commits, outside
from rakit.node.groups.state import Key, key_of
from rakit.node.metadata.registry import TopicInfo
from rakit.node.partition.producers import INTEGER_MAX
from rakit.node.reading.fetcher import Fetcher
from rakit.node.routing import Router, answer_by, give_up_at
from rakit.node.services.group_pages import GroupPages
from rakit.node.services.handlers import Call, Methods
from rakit.node.services.offsets import OffsetLookup
from rakit.peer.v1.group_command_pb2 import CommitGroupOffsets, GroupOffset

PAGE_SIZE_DEFAULT: Final = 50
PAGE_SIZE_MAX: Final = 500
RESET_TARGETS_COUNT_MAX: Final = 1_024
#: Partitions that one reset moves: their offsets are one entry.
RESET_PARTITIONS_COUNT_MAX: Final = 10_000
_PAGE_MARK: Final = "after:"


@dataclass(frozen=True, slots=True)
class GroupAdminParts:
    """What administering groups needs of the node."""

    client: GroupClient
    router: Router
    lookup: OffsetLookup
    pages: GroupPages
    fetcher: Fetcher
    header: ResponseHeader


class GroupAdmin:
    """The unary calls of rakit.api.v1.GroupService, but for PollGroup."""

    def __init__(self, parts: GroupAdminParts) -> None:
        self._parts = parts
        self._client = parts.client
        self._router = parts.router
        self._header = parts.header

    def register(self, methods: Methods) -> None:
        """Adds the methods."""
        methods.unary("CommitOffsets", api.CommitOffsetsRequest, self.commit_offsets)
        methods.unary("GetGroup", api.GetGroupRequest, self.get_group)
        methods.unary("ListGroups", api.ListGroupsRequest, self.list_groups)
        methods.unary("DeleteGroup", api.DeleteGroupRequest, self.delete_group)
        methods.unary("ResetOffsets", api.ResetOffsetsRequest, self.reset_offsets)

    async def commit_offsets(
        self, call: Call, request: api.CommitOffsetsRequest
    ) -> api.CommitOffsetsResponse:
        """Commits offsets, of a member or of a group without members."""
        check_group_name(request.group)
        check_commits(request.offsets)
        errors = await outside(self._parts.fetcher, request.offsets, give_up_at(call.deadline))
        commit = CommitGroupOffsets(
            group=request.group, member_id=request.member_id, member_epoch=request.member_epoch
        )
        places: list[int] = []
        for at, one in enumerate(request.offsets):
            if at in errors:
                continue
            topic = await self._router.topic(one.topic, give_up_at(call.deadline))
            commit.offsets.append(_offset(topic, one.partition, one.offset, one.metadata))
            places.append(at)
        if places:
            result = await self._client.commit(commit, answer_by(call.deadline))
            for refused, reason in zip(result.refused, result.reasons, strict=True):
                one = request.offsets[places[refused]]
                errors[places[refused]] = refusal(
                    reason, request.group, request.member_id, one.topic, one.partition
                )
        if errors and len(errors) == len(request.offsets):
            raise errors[0]
        return api.CommitOffsetsResponse(
            header=self._header,
            errors=[
                api.PartitionError(
                    topic=request.offsets[at].topic,
                    partition=request.offsets[at].partition,
                    error=to_status(error),
                )
                for at, error in sorted(errors.items())
            ],
        )

    async def get_group(self, call: Call, request: api.GetGroupRequest) -> api.GetGroupResponse:
        """A page of a group: its members, what they own, and how far it is behind."""
        check_group_name(request.group)
        _check_page_size(request.page_size)
        described = await self._client.describe(request.group, give_up_at(call.deadline))
        pages = self._parts.pages
        answer = await pages.page(described, request.page_size, request.page_token, call.deadline)
        answer.header.CopyFrom(self._header)
        return answer

    async def list_groups(
        self, call: Call, request: api.ListGroupsRequest
    ) -> api.ListGroupsResponse:
        """A page of groups, by name."""
        _check_page_size(request.page_size)
        size = min(request.page_size or PAGE_SIZE_DEFAULT, PAGE_SIZE_MAX)
        after = _after(request.page_token)
        groups = await self._client.list_names(after, size + 1, give_up_at(call.deadline))
        more = len(groups) > size
        page = groups[:size]
        return api.ListGroupsResponse(
            header=self._header,
            groups=page,
            next_page_token=_PAGE_MARK + page[-1].name if more else "",
        )

    async def delete_group(
        self, call: Call, request: api.DeleteGroupRequest
    ) -> api.DeleteGroupResponse:
        """Forgets a group without members."""
        check_group_name(request.group)
        await self._client.drop(request.group, answer_by(call.deadline))
        return api.DeleteGroupResponse(header=self._header)

    async def reset_offsets(
        self, call: Call, request: api.ResetOffsetsRequest
    ) -> api.ResetOffsetsResponse:
        """Moves the offsets of a group without members, all or none."""
        check_group_name(request.group)
        _check_targets(request.targets)
        described = await self._client.describe(request.group, give_up_at(call.deadline))
        if described.record.members:
            raise _active(request.group)
        before = {key_of(each): each for each in described.record.offsets}
        commit = CommitGroupOffsets(group=request.group)
        response = api.ResetOffsetsResponse(header=self._header)
        seen: set[Key] = set()
        for target in request.targets:
            topic, found = await self._ranges(target, call.deadline)
            for each in found:
                key = topic.topic_id, each.partition
                if key in seen:
                    raise _invalid(
                        f"Partition {each.partition} of topic {topic.name!r} is moved twice."
                    )
                seen.add(key)
                old = before.get(key)
                after = _moved(target, None if old is None else old.offset, each)
                change = response.changes.add(
                    topic=topic.name, partition=each.partition, after=after
                )
                if old is not None:
                    change.before = old.offset
                metadata = "" if old is None else old.metadata
                commit.offsets.append(_offset(topic, each.partition, after, metadata))
            if len(seen) > RESET_PARTITIONS_COUNT_MAX:
                raise _invalid(
                    f"One reset moves at most {RESET_PARTITIONS_COUNT_MAX:,} partitions.",
                    {"limit": str(RESET_PARTITIONS_COUNT_MAX), "actual": str(len(seen))},
                )
        if commit.offsets and not request.dry_run:
            result = await self._client.commit(commit, answer_by(call.deadline))
            if result.reasons:
                at = commit.offsets[result.refused[0]]
                change = response.changes[result.refused[0]]
                raise refusal(result.reasons[0], request.group, "", change.topic, at.partition)
        return response

    async def _ranges(
        self, target: api.ResetTarget, deadline: float
    ) -> tuple[TopicInfo, list[PartitionOffsets]]:
        """The topic of a target, and how far its partitions reach."""
        numbers = [target.partition] if target.HasField("partition") else []
        topic = await self._router.topic_with(target.topic, numbers, give_up_at(deadline))
        numbers = numbers or list(range(len(topic.partitions)))
        time_ms = target.time_ms if target.WhichOneof("to") == "time_ms" else None
        return topic, await self._parts.lookup.all_offsets(topic, numbers, time_ms, deadline)


def _moved(target: api.ResetTarget, before: int | None, seen: PartitionOffsets) -> int:
    """Where the offset of a partition goes."""
    match target.WhichOneof("to"):
        case "time_ms":
            return seen.at_time
        case "edge":
            return seen.latest if target.edge == EDGE_LATEST else seen.earliest
        case "shift":
            start = seen.earliest if before is None else before
            return min(max(start + target.shift, seen.earliest), seen.latest)
        case _:
            if seen.earliest <= target.offset <= seen.latest:
                return target.offset
            raise RakitError(
                error_pb2.ERROR_REASON_COMMIT_OUT_OF_RANGE,
                f"Offset {target.offset} lies outside of partition {seen.partition} of topic"
                f" {target.topic!r}, which holds {seen.earliest} up to, not including,"
                f" {seen.latest}. Nothing was moved.",
                {
                    "topic": target.topic,
                    "partition": str(seen.partition),
                    "earliest": str(seen.earliest),
                    "latest": str(seen.latest),
                },
            )


def _check_page_size(size: int) -> None:
    if size < 0:
        raise _invalid(f"page_size is {size}; it must not be negative.")


def _check_targets(targets: Iterable[api.ResetTarget]) -> None:
    targets = list(targets)
    if len(targets) > RESET_TARGETS_COUNT_MAX:
        raise _invalid(
            f"The reset has {len(targets):,} targets; the limit is {RESET_TARGETS_COUNT_MAX:,}.",
            {"limit": str(RESET_TARGETS_COUNT_MAX), "actual": str(len(targets))},
        )
    if not targets:
        raise _invalid("The reset names no target.")
    for each in targets:
        to = each.WhichOneof("to")
        if to is None:
            raise _invalid("A target says where to: give offset, time_ms, edge or shift.")
        if to == "edge" and each.edge not in Edge.values():
            raise _invalid(f"edge is {each.edge}; use EDGE_EARLIEST or EDGE_LATEST.")
        if to == "time_ms" and not 0 <= each.time_ms <= INTEGER_MAX:
            raise _invalid(f"{each.time_ms} is no time in milliseconds since 1970.")


def _offset(topic: TopicInfo, partition: int, offset: int, metadata: str) -> GroupOffset:
    return GroupOffset(
        topic_id=topic.topic_id, partition=partition, offset=offset, metadata=metadata
    )


def _active(group: str) -> RakitError:
    return RakitError(
        error_pb2.ERROR_REASON_GROUP_ACTIVE,
        f"Group {group!r} has members: its offsets can be moved when they have left.",
        {"group": group},
    )


def _after(token: str) -> str:
    if not token:
        return ""
    name = token.removeprefix(_PAGE_MARK)
    try:
        check_group_name(name)
    except RakitError:
        name = ""
    if name == token or not name:
        raise RakitError(
            error_pb2.ERROR_REASON_INVALID_PAGE_TOKEN,
            "The page token is not one that ListGroups gave; begin again without one.",
        )
    return name


def _invalid(text: str, metadata: dict[str, str] | None = None) -> RakitError:
    return RakitError(error_pb2.ERROR_REASON_INVALID_REQUEST, text, metadata)
