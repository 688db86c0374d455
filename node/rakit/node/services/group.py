"""GroupService: consuming in a group, by a stream or by calls.

What a stream does is `subscribe`, what a call does is `poll`; both hold their member by the node's
gateway. What administers groups is `group_admin`.
"""

from __future__ import annotations

from typing import Final

from rakit.api.v1.group_service_pb2 import PollGroupRequest
from rakit.node.services.group_admin import GroupAdmin
from rakit.node.services.handlers import Call, Methods, Stream
from rakit.node.services.poll import Polls
from rakit.node.services.subscribe import GroupParts, SubscribeSession


class GroupService:
    """rakit.api.v1.GroupService on one node."""

    NAME: Final = "rakit.api.v1.GroupService"

    def __init__(self, parts: GroupParts, admin: GroupAdmin) -> None:
        self._parts = parts
        self._admin = admin
        self._polls = Polls(parts)

    def register(self, methods: Methods) -> None:
        """Adds the methods."""
        methods.bidirectional("Subscribe", self.subscribe)
        methods.unary("PollGroup", PollGroupRequest, self._polls.poll)
        self._admin.register(methods)

    async def subscribe(self, call: Call, stream: Stream) -> None:
        """Serves a member on a stream."""
        await SubscribeSession(call, stream, self._parts).run()
