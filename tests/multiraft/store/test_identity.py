"""Whose directory it is: birth, rebirth, refusals, the lock (S10, S11)."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rakit.multiraft.store import (
    IdentityMismatchError,
    RocksStore,
    StoreConfig,
    StoreDamagedError,
    StoreLockedError,
)
from rakit.multiraft.store.errors import DirectoryUnusableError
from tests.multiraft.store.support import entries_in, open_store, write_some


def identity_file(directory: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((directory / "identity.json").read_text())
    return content


def change_identity(directory: Path, **fields: object) -> None:
    content = identity_file(directory) | fields
    (directory / "identity.json").write_text(json.dumps(content))


def test_s11_every_new_store_mints_a_uuid(tmp_path: Path) -> None:
    uuids: set[str] = set()
    for name in ("a", "b"):
        store = open_store(tmp_path / name)
        assert store.identity.cluster_id == ""
        assert store.identity.node_id == 0
        uuids.add(store.store_uuid)
        store.close()
    assert len(uuids) == 2


def test_a_restart_keeps_the_identity(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.adopt("cluster-a", 7)
    before = store.identity
    store.close()
    store = open_store(tmp_path)
    assert store.identity == before
    assert store.identity.node_id == 7
    store.close()


def test_another_clusters_directory_is_refused(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.check_identity("cluster-b", 3)  # nobody's yet: anybody may have it
    store.adopt("cluster-a", 7)
    store.check_identity("cluster-a", 7)
    with pytest.raises(IdentityMismatchError, match="belongs to cluster cluster-a") as refused:
        store.check_identity("cluster-b", 7)
    assert refused.value.exit_code == 12
    with pytest.raises(IdentityMismatchError, match="belongs to node 7"):
        store.check_identity("cluster-a", 8)
    with pytest.raises(IdentityMismatchError):
        store.adopt("cluster-b", 7)
    assert identity_file(tmp_path)["cluster_id"] == "cluster-a"
    store.close()


def test_another_nodes_directory_is_refused(tmp_path: Path) -> None:
    open_store(tmp_path).close()
    with pytest.raises(IdentityMismatchError, match="named 'n1', not 'n2'"):
        RocksStore.open(StoreConfig.small(tmp_path), "n2")
    open_store(tmp_path).close()


def test_s11_a_vanished_database_makes_a_new_store_of_the_same_cluster(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    store.adopt("cluster-a", 7)
    write_some(store, 5)
    old = store.store_uuid
    store.close()
    shutil.rmtree(tmp_path / "db")

    store = open_store(tmp_path)
    assert store.store_uuid != old
    assert store.identity.cluster_id == "cluster-a", "it cannot wander into another cluster"
    assert store.identity.node_id == 0, "the replicas of the old uuid are dead for good"
    assert entries_in(store) == []
    store.close()


def test_a_database_without_an_identity_is_refused(tmp_path: Path) -> None:
    open_store(tmp_path).close()
    (tmp_path / "identity.json").unlink()
    with pytest.raises(IdentityMismatchError, match="nobody can say whose"):
        open_store(tmp_path)
    assert any((tmp_path / "db").glob("*.sst")), "and not touched"


def test_s10_an_interrupted_birth_starts_over(tmp_path: Path) -> None:
    """Nothing of it can have been used: the mark is set before open returns."""
    store = open_store(tmp_path)
    uuid = store.store_uuid
    write_some(store, 5)
    store.close()
    for leftover in ("witness", "db"):
        change_identity(tmp_path, database_created=False)
        path = tmp_path / leftover
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()
        store = open_store(tmp_path)
        assert store.store_uuid == uuid
        assert entries_in(store) == []
        assert store.identity.database_created
        store.close()


WRONG: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_text(""),
    "no object": lambda path: path.write_text("[]"),
    "a field missing": lambda path: path.write_text('{"node_name": "n1"}'),
    "an unknown field": lambda path: change_identity(path.parent, colour="red"),
    "a wrong type": lambda path: change_identity(path.parent, node_id="7"),
    "a negative node": lambda path: change_identity(path.parent, node_id=-1),
    "a bool for a number": lambda path: change_identity(path.parent, node_id=True),
    "no uuid": lambda path: change_identity(path.parent, store_uuid="x"),
    "a number for the mark": lambda path: change_identity(path.parent, database_created=1),
    "a number for a name": lambda path: change_identity(path.parent, cluster_id=1),
    "binary": lambda path: path.write_bytes(b"\xff\xfe"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_damaged_identity_is_refused_and_not_replaced(tmp_path: Path, name: str) -> None:
    open_store(tmp_path).close()
    WRONG[name](tmp_path / "identity.json")
    before = (tmp_path / "identity.json").read_bytes()
    with pytest.raises(StoreDamagedError, match=r"identity\.json is damaged"):
        open_store(tmp_path)
    assert (tmp_path / "identity.json").read_bytes() == before


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    open_store(tmp_path).close()
    change_identity(tmp_path, format_version=2)
    with pytest.raises(IdentityMismatchError, match="format 2"):
        open_store(tmp_path)


def test_a_second_process_on_one_data_directory_is_told_who_has_it(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    with pytest.raises(StoreLockedError, match="a second process on one data directory") as refused:
        open_store(tmp_path)
    assert f"process {os.getpid()}" in str(refused.value)
    assert refused.value.exit_code == 2
    write_some(store, 1)
    store.close()
    open_store(tmp_path).close()


def test_a_refused_open_lets_go_of_the_directory(tmp_path: Path) -> None:
    open_store(tmp_path).close()
    with pytest.raises(IdentityMismatchError):
        RocksStore.open(StoreConfig.small(tmp_path), "n2")
    open_store(tmp_path).close()


def test_a_directory_in_what_belongs_to_somebody_else_is_misuse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, *_args: object, **_kwargs: object) -> None:
        # Who runs the tests may be root, whom no directory refuses.
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(DirectoryUnusableError, match=r"cannot be used: \[Errno 13\]") as caught:
        open_store(tmp_path / "mine")
    assert caught.value.exit_code == 2
