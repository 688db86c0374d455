"""Stores that were killed or lost their power in the middle of a history (P1, S7, S8, S13)."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from rakit.multiraft import keys
from rakit.multiraft.store import RocksStore, apart, wal
from rakit.multiraft.store.directory import live_values, live_wals, values_path, wal_path
from tests.multiraft.store.history import History, Kept, check, config_of
from tests.multiraft.store.support import NODE, Lived, crash_history, settle


@pytest.mark.parametrize("seed", range(6))
def test_after_a_kill_or_a_power_cut_a_store_holds_a_prefix_of_its_writes(
    tmp_path: Path, seed: int
) -> None:
    """Whatever is lost behind the last sync: what is left is as after one of the writes."""
    rng = random.Random(seed)
    directory = tmp_path / NODE
    kept: list[Kept] = []
    for life in range(4):
        lived = crash_history(directory, seed, kept, steps=rng.randint(30, 120))
        if life % 2:
            cut_power(directory, lived, rng)
        values = b"".join(
            values_path(directory / "db", *file).read_bytes()
            for file in live_values(directory / "db")
        )
        store = RocksStore.open(config_of(directory), NODE)
        recovered = store.opened_counter
        assert recovered >= lived.synced, "what was synced is there"
        steps = sum(number <= recovered for number in lived.numbers)
        history = History(seed, kept)
        for _ in range(steps):
            history.step()
        lasts = ends_of_logs(store, history, lived, values)
        kept.append((steps, lasts))
        history = History(seed, kept)
        check(store, history, seed)
        for _ in range(30):
            settle(store)
            store.upkeep()
        check(store, history, seed)
        store.close()


def ends_of_logs(
    store: RocksStore, history: History, lived: Lived, values: bytes
) -> dict[int, int]:
    """Where logs end early: what a table had before it was durable may lack its value (S13).

    ``values``: what the files of values held before.
    """
    lasts: dict[int, int] = {}
    for group_id, log in history.logs.items():
        found = [
            keys.number_of(key) for key, _ in store.scan(*keys.group_range(keys.ENTRY, group_id))
        ]
        last = max(found, default=log.base)
        for index in range(last + 1, log.last + 1):
            step = history.written.get(keys.entry(group_id, index), 0)
            assert step, "what an earlier life has left was durable"
            assert lived.numbers[step - 1] > lived.synced, "what was synced is there"
        if last < log.last:
            first = log.entries[last - log.base]
            assert len(first) >= config_of(Path()).apart_bytes_min, "a small entry lacks nothing"
            assert first not in values, "nor does one that is there"
            lasts[group_id] = last
    return lasts


def cut_power(directory: Path, lived: Lived, rng: random.Random) -> None:
    """Files keep what was synced of them, and at random some of what was not.

    What the log has kept was written behind its values.
    """
    newest = live_wals(directory / "db")[-1]
    path = wal_path(directory / "db", newest)
    least = lived.length if newest == lived.wal else 0
    length = rng.randint(least, max(least, path.stat().st_size))
    path.write_bytes(path.read_bytes()[:length])
    needed = {file: lived.values.get(file, 0) for file in live_values(directory / "db")}
    for number in live_wals(directory / "db"):
        for frame in wal.Walk(wal_path(directory / "db", number)):
            for segment, operations in wal.decode(frame.payload).items():
                for _, _, row in operations:
                    if segment and (found := apart.reference(row)):
                        file = segment, found.file
                        needed[file] = max(needed.get(file, 0), found.offset + found.length)
    for file, least in needed.items():
        path = values_path(directory / "db", *file)
        if file == max(needed) and path.exists():
            os.truncate(path, rng.randint(least, max(least, path.stat().st_size)))
