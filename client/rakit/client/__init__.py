"""The Python client of rakit: append to topics and read them, with asyncio.

    async with Client("127.0.0.1:7070") as client:
        await client.admin.create_topic("orders", partitions=3)
        async with client.producer() as producer:
            delivery = await producer.send("orders", b"one bicycle", key=b"customer-7")
            print(await delivery)
        async with client.reader("orders") as reader:
            async for record in reader:
                print(record.offset, record.value)

Names are loaded when they are first used, so that the command line starts quickly.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from rakit.client.admin import Admin as Admin
    from rakit.client.client import Client as Client
    from rakit.client.config import ClientConfig as ClientConfig
    from rakit.client.config import GroupConfig as GroupConfig
    from rakit.client.config import ProducerConfig as ProducerConfig
    from rakit.client.config import ReaderConfig as ReaderConfig
    from rakit.client.consuming.consumer import GroupConsumer as GroupConsumer
    from rakit.client.consuming.consumer import Hooks as Hooks
    from rakit.client.consuming.places import TopicPartition as TopicPartition
    from rakit.client.errors import AlreadyExistsError as AlreadyExistsError
    from rakit.client.errors import ClosedError as ClosedError
    from rakit.client.errors import DeliveryTimeoutError as DeliveryTimeoutError
    from rakit.client.errors import GroupActiveError as GroupActiveError
    from rakit.client.errors import InvalidRequestError as InvalidRequestError
    from rakit.client.errors import LocalReason as LocalReason
    from rakit.client.errors import MemberFencedError as MemberFencedError
    from rakit.client.errors import NotFoundError as NotFoundError
    from rakit.client.errors import NotOwnerError as NotOwnerError
    from rakit.client.errors import OffsetMismatchError as OffsetMismatchError
    from rakit.client.errors import OffsetOutOfRangeError as OffsetOutOfRangeError
    from rakit.client.errors import OutcomeUnknownError as OutcomeUnknownError
    from rakit.client.errors import ProducerFencedError as ProducerFencedError
    from rakit.client.errors import RakitError as RakitError
    from rakit.client.errors import SequenceError as SequenceError
    from rakit.client.errors import ServerError as ServerError
    from rakit.client.errors import StorageError as StorageError
    from rakit.client.errors import UnavailableError as UnavailableError
    from rakit.client.groups import Group as Group
    from rakit.client.groups import GroupMember as GroupMember
    from rakit.client.groups import GroupPartition as GroupPartition
    from rakit.client.groups import GroupSummary as GroupSummary
    from rakit.client.groups import OffsetChange as OffsetChange
    from rakit.client.model import Cluster as Cluster
    from rakit.client.model import Digest as Digest
    from rakit.client.model import Node as Node
    from rakit.client.model import Offsets as Offsets
    from rakit.client.model import Partition as Partition
    from rakit.client.model import Receipt as Receipt
    from rakit.client.model import Topic as Topic
    from rakit.client.model import TopicConfig as TopicConfig
    from rakit.client.producing.batch import Delivery as Delivery
    from rakit.client.producing.producer import Producer as Producer
    from rakit.client.reading.reader import Reader as Reader
    from rakit.client.records import Record as Record
    from rakit.client.records import RecordBatch as RecordBatch
    from rakit.client.routing import partition_for as partition_for

_HOMES: Final = {
    "admin": ("Admin",),
    "client": ("Client",),
    "config": ("ClientConfig", "GroupConfig", "ProducerConfig", "ReaderConfig"),
    "consuming.consumer": ("GroupConsumer", "Hooks"),
    "consuming.places": ("TopicPartition",),
    "errors": (
        "AlreadyExistsError",
        "ClosedError",
        "DeliveryTimeoutError",
        "GroupActiveError",
        "InvalidRequestError",
        "LocalReason",
        "MemberFencedError",
        "NotFoundError",
        "NotOwnerError",
        "OffsetMismatchError",
        "OffsetOutOfRangeError",
        "OutcomeUnknownError",
        "ProducerFencedError",
        "RakitError",
        "SequenceError",
        "ServerError",
        "StorageError",
        "UnavailableError",
    ),
    "groups": ("Group", "GroupMember", "GroupPartition", "GroupSummary", "OffsetChange"),
    "model": (
        "Cluster",
        "Digest",
        "Node",
        "Offsets",
        "Partition",
        "Receipt",
        "Topic",
        "TopicConfig",
    ),
    "producing.batch": ("Delivery",),
    "producing.producer": ("Producer",),
    "reading.reader": ("Reader",),
    "records": ("Record", "RecordBatch"),
    "routing": ("partition_for",),
}
_HOME_OF: Final = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> object:
    """Loads a public name from its module."""
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    """Returns the public names."""
    return sorted(_HOME_OF)
