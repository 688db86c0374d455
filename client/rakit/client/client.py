"""The way in: a `Client` is one application's view of one cluster.

It owns the connections and what is known of topics and leaders; producers, readers and the admin
functions share both. One client per process and event loop is right; it is cheap to make, connects
when it is first used, and is closed by leaving its `async with`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Literal, Self

from rakit.api.v1 import log_service_pb2 as log
from rakit.client.admin import Admin
from rakit.client.config import (
    ClientConfig,
    GroupConfig,
    ProducerConfig,
    ReaderConfig,
    bootstrap_addresses,
)
from rakit.client.connections import Connections
from rakit.client.consuming.consumer import GroupConsumer, Hooks
from rakit.client.consuming.session import Subscription
from rakit.client.metadata import Metadata
from rakit.client.producing.producer import Producer
from rakit.client.reading.reader import Reader


class Client:
    """A cluster, as seen from here.

    `bootstrap` is host:port of any of its nodes, several separated by commas, or a whole
    `ClientConfig`. By default it is taken from RAKIT_BOOTSTRAP, else 127.0.0.1:7070.
    """

    def __init__(self, bootstrap: str | ClientConfig | None = None) -> None:
        if isinstance(bootstrap, ClientConfig):
            self._config = bootstrap
        else:
            self._config = ClientConfig(bootstrap_addresses(bootstrap))
        self._connections = Connections(self._config)
        self._metadata = Metadata(self._connections, self._config.bootstrap)
        self.admin = Admin(self._connections, self._metadata)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Closes the connections. Close producers and readers before."""
        await self._metadata.close()
        await self._connections.close()

    def producer(self, config: ProducerConfig | None = None) -> Producer:
        """Returns a producer, to be used as `async with`."""
        return Producer(self._connections, self._metadata, self._config, config or ProducerConfig())

    def reader(
        self,
        topic: str,
        partitions: Sequence[int] | None = None,
        from_: Literal["earliest", "latest"] | int | datetime | Mapping[int, int] = "earliest",
        *,
        follow: bool = False,
        config: ReaderConfig | None = None,
    ) -> Reader:
        """Returns a reader of a topic's partitions (default: all), to be used as `async with`.

        `from_` is an edge, an offset for every partition, a time (the first record appended at or
        after it, or the end of the log where there is none yet), or an offset by partition. Without
        `follow` it ends where the log ends when reading begins.

        Entering raises OffsetOutOfRangeError for an offset that a partition does not have. With
        `follow` and one offset for every partition, those that do not have it begin at the nearest
        one that they have, unless no partition has it.
        """
        return Reader(
            self._connections,
            self._metadata,
            topic,
            (partitions, from_, follow),
            (self._config, config or ReaderConfig()),
        )

    def group_consumer(
        self,
        group: str,
        topics: Sequence[str] = (),
        *,
        patterns: Sequence[str] = (),
        from_: Literal["earliest", "latest"] = "earliest",
        hooks: Hooks | None = None,
        config: GroupConfig | None = None,
    ) -> GroupConsumer:
        """Returns a member of a group, to be used as `async with`.

        It gets its share of the topics that are named or match a pattern (`*` and `?`); `from_` is
        where to begin in a partition in which the group has committed nothing. Entering raises
        InvalidRequestError for names that are none, and AlreadyExistsError while another process
        has the same `instance_id`.
        """
        if isinstance(topics, str) or isinstance(patterns, str):
            raise TypeError("topics and patterns are sequences of names, not one name")
        start = log.EDGE_LATEST if from_ == "latest" else log.EDGE_EARLIEST
        wanted = Subscription(group, tuple(topics), tuple(patterns), start)
        configs = (self._config, config or GroupConfig())
        return GroupConsumer(self._connections, configs, wanted, hooks or Hooks())
