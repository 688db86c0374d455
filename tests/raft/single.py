"""One replica whose peers are played by the test, message by message."""

from __future__ import annotations

from typing import Any

from rakit.raft import (
    ConfState,
    Entry,
    HardState,
    MemoryStorage,
    Message,
    MessageType,
    Ready,
)
from tests.raft.network import Replica, Store


class Single(Replica):
    """A replica with a log given by its terms, from index 1 on."""

    def __init__(
        self,
        log: list[int] | None = None,
        *,
        replica_id: int = 1,
        conf: ConfState | None = None,
        term: int = 0,
        vote: int = 0,
        commit: int = 0,
        **options: int,
    ) -> None:
        entries = log or []
        storage = MemoryStorage(conf or ConfState((1, 2, 3)))
        storage.append(entries_of(1, *entries))
        storage.set_hard_state(HardState(max([term, *entries]), vote, commit))
        super().__init__(
            replica_id,
            Store(storage, applied=0),
            {"election_tick": 10, "heartbeat_tick": 1, **options},
        )
        self.readys: list[Ready] = []

    def drain(self) -> list[Message]:
        """Does all that is asked for; returns the messages, in the order in which they leave."""
        messages: list[Message] = []
        while self.node.has_ready():
            ready = self.take()
            self.readys.append(ready)
            messages += ready.messages
            messages += self.persist(len(self.flights))
        return messages

    def step(self, kind: MessageType, sender: int, **fields: Any) -> list[Message]:
        """Hands over a message and returns the answers."""
        values: dict[str, Any] = {"term": self.term, **fields}
        self.node.step(Message(kind, self.id, sender, **values))
        return self.drain()

    def append(self, sender: int, prev: tuple[int, int], *run: int, **fields: Any) -> list[Message]:
        """Hands over an append behind prev (term, index) with entries of these terms."""
        return self.step(
            MessageType.APP,
            sender,
            log_term=prev[0],
            index=prev[1],
            entries=tuple(entries_of(prev[1] + 1, *run)),
            **fields,
        )

    def win(self) -> list[Message]:
        """Makes the replica leader with the votes of all; returns what it sends first."""
        self.node.forget_leader()
        assert self.node.campaign()
        self.drain()
        for kind in (MessageType.PRE_VOTE_RESP, MessageType.VOTE_RESP):
            term = self.term + (kind is MessageType.PRE_VOTE_RESP)
            for voter in self.node.status().conf_state.voters:
                if voter != self.id and not self.is_leader:
                    sent = self.step(kind, voter, term=term)
                    if self.is_leader:
                        return sent
        assert self.is_leader
        return []

    def requests(self) -> list[Message]:
        """Stands for election and returns the requests to replica 1."""
        self.node.campaign()
        return [message for message in self.drain() if message.to == 1]

    @property
    def is_leader(self) -> bool:
        return self.node.basic_status().lead == self.id

    def terms(self) -> list[int]:
        log = self.node._raft.log
        return [log.term(i) for i in range(log.first_index, log.last_index + 1)]


def append_message(
    node: Replica, sender: int, prev: tuple[int, int], *run: int, term: int
) -> Message:
    """Returns an append behind prev (term, index) with entries of these terms."""
    return Message(
        MessageType.APP,
        node.id,
        sender,
        term,
        prev[0],
        prev[1],
        tuple(entries_of(prev[1] + 1, *run)),
    )


def entries_of(first: int, *run: int) -> list[Entry]:
    """Returns entries of these terms."""
    return [Entry(term, first + i) for i, term in enumerate(run)]


def of_kind(messages: list[Message], kind: MessageType) -> list[Message]:
    return [message for message in messages if message.type is kind]
