"""A database that is given up goes whole, and the next one is another store's (S9, S11)."""

from __future__ import annotations

import shutil
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rakit.multiraft.store import (
    RocksStore,
    StoreConfig,
    StoreDamagedError,
    StoreLockedError,
    discarding,
    uncompacted,
)
from rakit.multiraft.store.discarding import Held
from rakit.multiraft.store.engine import Engine, EngineError
from rakit.multiraft.store.errors import Fault, classify
from tests.multiraft.store.support import NODE, entries_in, open_store, write_some


@pytest.fixture
def uuid(tmp_path: Path) -> str:
    """Of a closed store with some rows, which belongs to a node of a cluster."""
    store = open_store(tmp_path)
    store.adopt("cluster", 3)
    write_some(store, 5)
    store.close()
    return store.store_uuid


@contextmanager
def holding(directory: Path) -> Generator[Held | None]:
    held = discarding.hold(directory)
    try:
        yield held
    finally:
        if held is not None:
            held.close()


def discard(directory: Path) -> None:
    with holding(directory) as held:
        assert held is not None
        held.discard()


def test_s9_a_store_that_is_given_up_is_followed_by_a_new_one_of_the_same_cluster(
    tmp_path: Path, uuid: str
) -> None:
    uncompacted.note(tmp_path, Fault.CORRUPTION, "a bad block")
    with holding(tmp_path) as held:
        assert held is not None
        assert (held.identity.store_uuid, held.identity.node_id) == (uuid, 3)
        with pytest.raises(StoreLockedError):
            open_store(tmp_path)
        held.discard()
    assert not (tmp_path / "db").exists()
    with holding(tmp_path) as held:
        assert held is None, "there is nothing left to give up"
    store = open_store(tmp_path)
    assert store.store_uuid != uuid
    assert (store.identity.cluster_id, store.identity.node_id) == ("cluster", 0)
    assert entries_in(store) == []
    assert not store.uncompacted, "what was wrong was the old one's"
    store.close()


@pytest.mark.parametrize("born", [False, True])
def test_s9_what_an_interrupted_end_has_left_goes_at_the_next_start(
    tmp_path: Path, uuid: str, *, born: bool
) -> None:
    (tmp_path / "db").rename(tmp_path / "given-up")  # and then the power failed
    if born:
        shutil.copytree(tmp_path / "given-up", tmp_path / "kept")
        open_store(tmp_path).close()
        (tmp_path / "kept").rename(tmp_path / "given-up")
    store = open_store(tmp_path)
    assert store.store_uuid != uuid
    assert not (tmp_path / "given-up").exists()
    store.close()


def test_what_cannot_be_deleted_is_tried_again_later(
    tmp_path: Path, uuid: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = shutil.rmtree

    def refuse(path: Path, *, ignore_errors: bool = False) -> None:
        if path.name == "given-up":
            raise OSError(5, "Input/output error")
        real(path, ignore_errors=ignore_errors)

    discard(tmp_path)
    monkeypatch.setattr(shutil, "rmtree", refuse)
    store = open_store(tmp_path)
    assert store.store_uuid != uuid
    store.close()
    assert "could not be deleted yet" in caplog.text
    assert (tmp_path / "given-up").exists()
    monkeypatch.undo()
    store = open_store(tmp_path)
    assert not (tmp_path / "given-up").exists()
    store.close()


def test_s9_what_an_earlier_one_has_left_is_not_deleted_between_the_answer_and_the_act(
    tmp_path: Path, uuid: str
) -> None:
    (tmp_path / "given-up").mkdir()
    (tmp_path / "given-up" / "file").touch()
    with pytest.raises(OSError, match="not empty"):
        discard(tmp_path)
    store = open_store(tmp_path)
    assert store.store_uuid == uuid
    store.close()
    discard(tmp_path)


@pytest.mark.parametrize(
    ("text", "is_lost"),
    [
        ("Corruption: no meta-nextfile entry in descriptor", True),
        (
            "IO error: While open a file for random read: /d/000009.sst: Too many open files",
            False,
        ),
        ("Invalid argument: unknown option", False),
    ],
)
def test_s9_a_store_that_does_not_open_is_lost_only_for_what_is_stored(
    tmp_path: Path, uuid: str, text: str, *, is_lost: bool
) -> None:
    def refuse(path: Path, config: StoreConfig, *, create: bool) -> Engine:
        assert not create, f"{path} is there, says {config}"
        raise EngineError(classify(Exception(text)), text)

    with pytest.raises(StoreDamagedError) as caught:
        RocksStore.open(StoreConfig.small(tmp_path), NODE, refuse)
    assert caught.value.is_lost is is_lost
    store = open_store(tmp_path)
    assert store.store_uuid == uuid
    store.close()


def test_s9_a_store_without_its_witness_is_lost(tmp_path: Path, uuid: str) -> None:
    assert uuid
    (tmp_path / "witness").unlink()
    with pytest.raises(StoreDamagedError) as caught:
        open_store(tmp_path)
    assert caught.value.is_lost


def test_the_end_of_a_store_stands_though_its_directory_cannot_be_synced(
    tmp_path: Path, uuid: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(_path: Path) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(discarding, "sync_directory", refuse)
    discard(tmp_path)
    assert "may not be on the disk yet" in caplog.text
    monkeypatch.undo()
    store = open_store(tmp_path)
    assert store.store_uuid != uuid
    store.close()


def test_a_store_that_somebody_uses_is_not_held(tmp_path: Path, uuid: str) -> None:
    store = open_store(tmp_path)
    with pytest.raises(StoreLockedError):
        discarding.hold(tmp_path)
    assert store.store_uuid == uuid
    store.close()


@pytest.mark.parametrize("at_the_end", [False, True])
def test_s9_a_store_with_a_replica_that_contradicts_the_others_is_marked_as_long_as_it_lasts(
    tmp_path: Path,
    uuid: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    *,
    at_the_end: bool,
) -> None:
    with holding(tmp_path) as held:
        assert held is not None
        assert not held.is_disputed

    def refuse(_path: Path, _data: bytes) -> None:
        raise OSError(28, "No space left on device")

    store = open_store(tmp_path)
    store.keep_for_a_person()
    monkeypatch.setattr(discarding, "write_durably", refuse)
    store.maintain()
    assert "could not be marked" in caplog.text
    monkeypatch.undo()
    if not at_the_end:
        store.maintain()
        assert (tmp_path / "disputed").exists()
    store.close()
    open_store(tmp_path).close()
    with holding(tmp_path) as held:
        assert held is not None
        assert held.is_disputed
    shutil.rmtree(tmp_path / "db")
    store = open_store(tmp_path)
    assert store.store_uuid != uuid
    store.close()
    with holding(tmp_path) as held:
        assert held is not None
        assert not held.is_disputed
