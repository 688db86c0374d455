"""Whose data directory this is (S10, S11).

``identity.json`` outlives the database beside it, so what is missing can be told apart:

- neither is there: a new store is born. Identity first (with a fresh store uuid), then the
  database, then the mark ``database_created``; a crash in between leaves an unborn store, which
  starts over, since nothing of it can have been used.
- the identity is marked but the database has vanished: a new store under a new uuid. Its node id is
  given up, because replicas of the old uuid are dead for good; the cluster stays, so that the node
  cannot wander into another one.
- a database without an identity: refused; nobody can say whose it is.

The uuid is also stored inside the database, so a database that was copied under another identity is
refused as well.
"""

from __future__ import annotations

import json
import uuid
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import cast

from rakit.multiraft.store.errors import (
    IdentityMismatchError,
    LossKind,
    LossReport,
    StoreDamagedError,
)
from rakit.multiraft.store.files import write_durably

FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True)
class Identity:
    """The content of ``identity.json``."""

    #: The name the node was first started with.
    node_name: str

    #: Minted for every new store; the registry keys stores by (node id, store uuid).
    store_uuid: str

    #: Empty until the node has founded or joined a cluster.
    cluster_id: str = ""

    #: 0 until the node has founded or joined a cluster.
    node_id: int = 0

    #: Whether the birth of the database beside it was finished.
    database_created: bool = False

    #: The layout of the directory and of everything in it.
    format_version: int = FORMAT_VERSION

    def check(self, cluster_id: str, node_id: int) -> None:
        """Raise unless this directory is the given node's of the given cluster, or nobody's yet."""
        if self.cluster_id and self.cluster_id != cluster_id:
            raise IdentityMismatchError(
                f"the data directory belongs to cluster {self.cluster_id}, not to {cluster_id}"
            )
        if self.node_id and self.node_id != node_id:
            raise IdentityMismatchError(
                f"the data directory belongs to node {self.node_id}, not to node {node_id}"
            )


def newborn(node_name: str) -> Identity:
    """The identity of a store that is about to be made."""
    return Identity(node_name=node_name, store_uuid=str(uuid.uuid4()))


def reborn(lost: Identity) -> Identity:
    """The identity of the store that takes the place of one whose database vanished (S11)."""
    return replace(newborn(lost.node_name), cluster_id=lost.cluster_id)


def load(path: Path) -> Identity | None:
    """Read an identity file; None when there is none."""
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return None
    try:
        data = cast("object", json.loads(text))
        identity = _decode(data)
    except (ValueError, TypeError, KeyError) as error:
        detail = f"{path} is damaged: {error}"
        raise StoreDamagedError(LossReport(LossKind.UNREADABLE, detail)) from error
    if identity.format_version != FORMAT_VERSION:
        raise IdentityMismatchError(
            f"{path} has format {identity.format_version}; this version reads {FORMAT_VERSION}"
        )
    return identity


def save(path: Path, identity: Identity) -> None:
    """Make an identity durable."""
    write_durably(path, (json.dumps(asdict(identity), indent=2) + "\n").encode())


def _decode(data: object) -> Identity:
    """An identity from parsed JSON; every field must be there with its type, and no other."""
    if not isinstance(data, dict):
        raise TypeError("not an object")
    values = cast("dict[str, object]", data)
    names = {field.name for field in fields(Identity)}
    if set(values) != names:
        raise KeyError(f"fields {sorted(set(values) ^ names)}")
    node_name, store_uuid = values["node_name"], values["store_uuid"]
    cluster_id, node_id = values["cluster_id"], values["node_id"]
    created, version = values["database_created"], values["format_version"]
    if not (isinstance(node_name, str) and isinstance(cluster_id, str)):
        raise TypeError("names must be strings")
    if not isinstance(store_uuid, str) or str(uuid.UUID(store_uuid)) != store_uuid:
        raise TypeError("store_uuid must be a uuid")
    if type(node_id) is not int or node_id < 0 or type(version) is not int:
        raise TypeError("node_id and format_version must be whole numbers")
    if not isinstance(created, bool):
        raise TypeError("database_created must be true or false")
    return Identity(node_name, store_uuid, cluster_id, node_id, created, version)
