"""The set-up of RocksDB: in force or refused (S6), and fitted to the disk."""

from __future__ import annotations

import errno
import os
import re
import resource
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rocksdict import AccessType, Options, Rdict

from rakit.multiraft.kv import WriteBatch
from rakit.multiraft.store import RocksStore, StoreConfig, StoreFailedError, options
from rakit.multiraft.store.config import GIB, MIB
from rakit.multiraft.store.errors import Fault, classify
from tests.multiraft.store.support import (
    BAD_SECTOR,
    DEAD_DISK,
    FULL_DISK,
    NODE,
    STALL,
    entries_in,
    newest,
    open_store,
    write_some,
)


def settings(config: StoreConfig, **changes: Any) -> dict[str, dict[str, str]]:
    named: dict[str, Any] = {
        "create": True,
        "direct_io": False,
        "compacts": True,
        "reserve_bytes": 0,
    } | changes
    return options.settings(config, **named)


def test_an_options_text_reads_back_as_it_was_written(tmp_path: Path) -> None:
    sections = settings(StoreConfig.small(tmp_path))
    assert options.parse(options.render(sections)).items() >= sections.items()


def test_s6_every_setting_is_in_force_after_opening(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    found = options.parse(newest(tmp_path, "OPTIONS-*").read_text())
    for name, value in {
        "track_and_verify_wals_in_manifest": "true",
        "wal_recovery_mode": "kTolerateCorruptedTailRecords",
        "recycle_log_file_num": "0",
        "paranoid_checks": "true",
        "max_bgerror_resume_count": "0",
    }.items():
        assert found["DBOptions"][name] == value
    store.close()


def test_the_background_work_of_a_store_is_paced(tmp_path: Path) -> None:
    open_store(tmp_path).close()
    log = (tmp_path / "db" / "LOG").read_text()
    (told,) = re.findall(r"Options\.rate_limiter: (\S+)", log)
    assert told.startswith("0x"), "RocksDB says (nil) where there is none"


def test_s6_a_setting_that_did_not_take_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a binding would behave that ignores what it does not know."""
    real = options.render

    def losing(sections: dict[str, dict[str, str]]) -> str:
        return real(sections).replace("track_and_verify_wals_in_manifest=true", "")

    monkeypatch.setattr(options, "render", losing)
    with pytest.raises(StoreFailedError, match="track_and_verify_wals_in_manifest=false instead"):
        open_store(tmp_path)
    monkeypatch.undo()
    open_store(tmp_path).close()


def test_bytes_are_stored_as_they_are_and_never_pickled(tmp_path: Path) -> None:
    store = open_store(tmp_path)
    batch = WriteBatch()
    batch.put(b"\x08raw", b"value")
    store.write(batch)
    store.close()
    raw = Rdict(str(tmp_path / "db"), Options(raw_mode=True), access_type=AccessType.read_only())
    assert raw[b"\x08raw"] == b"value"
    raw.close()


def test_the_template_is_rewritten_when_it_differs(tmp_path: Path) -> None:
    for _ in range(2):  # birth, and the first start after it
        open_store(tmp_path).close()
    path = tmp_path / "options" / "OPTIONS-000001"
    good, made = path.read_text(), path.stat().st_mtime_ns
    open_store(tmp_path).close()
    assert path.stat().st_mtime_ns == made, "a full disk need not take it again"
    path.write_text("[DBOptions]")
    open_store(tmp_path).close()
    assert path.read_text() == good


def test_a_database_that_wrote_no_options_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreFailedError, match="unproven"):
        options.verify(tmp_path, {})


@pytest.mark.parametrize("refusing", ["open", "write"])
def test_without_direct_io_flushes_are_buffered(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    refusing: str,
) -> None:
    """File systems refuse O_DIRECT either when a file is opened or when it is written."""
    caplog.set_level("INFO")

    real: Any = getattr(os, refusing)

    def refuse(target: Any, *arguments: Any, **named: Any) -> int:
        if refusing == "write" or Path(target).name == "direct-io-probe":
            raise OSError(errno.EINVAL, "Invalid argument")
        result: int = real(target, *arguments, **named)
        return result

    with monkeypatch.context() as patch:
        patch.setattr(os, refusing, refuse)
        assert not options.probe_direct_io(tmp_path)
    assert "flushes are buffered" in caplog.text
    assert list(tmp_path.iterdir()) == [], "the probe leaves nothing behind"

    def no_direct_io(_: Path) -> bool:
        return False

    monkeypatch.setattr(options, "probe_direct_io", no_direct_io)
    store = open_store(tmp_path)
    write_some(store, 100, value=bytes(2000))
    assert entries_in(store) == list(range(100))
    store.close()


@pytest.mark.parametrize(
    ("reserve_bytes", "tables"), [(0, 4), (1 * GIB, 10), (3 * GIB, 32), (100 * GIB, 64)]
)
def test_compaction_begins_earlier_where_it_has_less_room(
    tmp_path: Path, reserve_bytes: int, tables: int
) -> None:
    family = settings(StoreConfig(directory=tmp_path), reserve_bytes=reserve_bytes)[
        'CFOptions "default"'
    ]
    assert family["level0_file_num_compaction_trigger"] == str(tables)
    base = int(family["max_bytes_for_level_base"])
    assert base == 2 * tables * 32 * MIB
    assert reserve_bytes == 0 or base + tables * 32 * MIB <= reserve_bytes


@pytest.mark.parametrize(
    ("hard", "tables"), [(resource.RLIM_INFINITY, -1), (200_000, -1), (4096, 2048)]
)
def test_every_table_stays_open_where_descriptors_suffice(
    monkeypatch: pytest.MonkeyPatch, hard: int, tables: int
) -> None:
    raised: list[tuple[int, int]] = []

    def get_limit(_: int) -> tuple[int, int]:
        return 256, hard

    def set_limit(_: int, limits: tuple[int, int]) -> None:
        raised.append(limits)

    monkeypatch.setattr(resource, "getrlimit", get_limit)
    monkeypatch.setattr(resource, "setrlimit", set_limit)
    assert options.open_tables_max(all_of_them=True) == tables
    assert options.open_tables_max(all_of_them=False) == (65_536 if tables == -1 else tables)
    assert raised == 2 * [(hard, hard)]


def test_the_errors_of_rocksdb_are_told_apart() -> None:
    assert classify(Exception(STALL)) is Fault.STALL
    assert classify(Exception(FULL_DISK)) is Fault.DISK_FULL
    assert classify(Exception("Corruption: IO error: No space left on device: x")) is (
        Fault.DISK_FULL
    )
    assert classify(Exception("IO error: /d/000004.log: Disk quota exceeded")) is Fault.DISK_FULL
    assert classify(Exception("Corruption: block checksum mismatch")) is Fault.CORRUPTION
    assert classify(Exception(BAD_SECTOR)) is Fault.TABLE_UNREAD
    assert classify(Exception(DEAD_DISK)) is Fault.OTHER
    assert classify(Exception("Result incomplete: something else")) is Fault.OTHER


@pytest.mark.parametrize(
    "change",
    [
        {"write_buffer_bytes": 1000},
        {"write_buffer_count": 1},
        {"wal_file_bytes": 0},
        {"wal_waiting_bytes_max": 0},
        {"scan_chunk_bytes": 0},
        {"witness_interval_ms": 0},
        {"reserve_bytes": -1},
        {"block_cache_bytes": 0},
    ],
)
def test_settings_that_cannot_work_are_refused(tmp_path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(AssertionError):
        replace(StoreConfig(directory=tmp_path), **change)


def test_a_relative_directory_is_where_it_was_when_the_store_was_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    store = RocksStore.open(StoreConfig.small(Path("data")), NODE)
    os.chdir("/")
    write_some(store, 3)
    store.close()
    assert open_files(tmp_path / "data") == [0, 1, 2]


def open_files(directory: Path) -> list[int]:
    store = open_store(directory)
    found = entries_in(store)
    store.close()
    return found
