"""Who is let in, and how a store that went back in time is found out (S7)."""

from __future__ import annotations

import pytest

from rakit.multiraft.hello import (
    DATA,
    Gate,
    NodeIdentity,
    Rollback,
    StoreMemory,
    next_boot_epoch,
)
from rakit.multiraft.kv import WriteBatch
from rakit.peer.v1 import raft_service_pb2 as wire
from tests.multiraft.host.support import DictDisk

ME = NodeIdentity("cluster", 1, "my-store", 10)


def hello(**changes: object) -> wire.Hello:
    fields: dict[str, object] = {
        "cluster_id": "cluster",
        "from_node_id": 2,
        "to_node_id": 1,
        "store_uuid": "store-2",
        "boot_epoch": 5,
        "synced_counter": 100,
        "lane": DATA,
    }
    return wire.Hello(**(fields | changes))  # type: ignore[arg-type]  # fields by name


class Door:
    def __init__(self, disk: DictDisk | None = None) -> None:
        self.disk = DictDisk() if disk is None else disk
        self.memory = StoreMemory(self.disk)
        self.alarms: list[Rollback] = []
        #: The boot epoch of the process that answers for node 2.
        self.answering = 0
        self.gate = Gate(
            ME, lambda: 77, self.memory, self.alarms.append, lambda _node_id: self.answering
        )

    def save(self) -> None:
        self.disk.write(self.memory.notes())
        self.memory.noted()


def test_a_peer_of_this_cluster_is_let_in() -> None:
    assert Door().gate.judge(hello()) is None


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"cluster_id": "other"}, "node 1 belongs to cluster cluster, not other"),
        ({"to_node_id": 3}, "this is node 1, not node 3"),
        ({"from_node_id": 1}, "called by another process with its own id"),
        ({"from_node_id": 9}, "node 9 answers at the address of node 2"),
        ({"lane": wire.LINK_LANE_UNSPECIFIED}, "lane 0 is unknown"),
        ({"store_uuid": ""}, "names no store"),
        ({"boot_epoch": 0}, "names no store or no boot"),
    ],
)
def test_anybody_else_is_refused_with_a_reason(changes: dict[str, object], text: str) -> None:
    verdict = Door().gate.judge(hello(**changes), expected_node_id=2)
    assert verdict is not None
    assert text in verdict


def test_the_own_hello_says_who_this_is() -> None:
    made = Door().gate.hello(2, DATA)
    assert (made.cluster_id, made.from_node_id, made.to_node_id) == ("cluster", 1, 2)
    assert (made.store_uuid, made.boot_epoch, made.synced_counter) == ("my-store", 10, 77)


def test_s7_a_store_that_went_back_is_refused_and_reported() -> None:
    door = Door()
    assert door.gate.judge(hello(synced_counter=500)) is None
    verdict = door.gate.judge(hello(boot_epoch=6, synced_counter=400))
    assert verdict is not None
    assert "had synced 500 writes and now knows 400" in verdict
    assert door.alarms == [Rollback(2, "store-2", 500, 400)]


def test_s7_what_was_heard_is_remembered_over_a_restart() -> None:
    door = Door()
    door.gate.judge(hello(synced_counter=500))
    assert door.memory.has_notes
    door.save()
    again = Door(door.disk)
    assert again.gate.judge(hello(boot_epoch=6, synced_counter=499)) is not None
    assert again.gate.judge(hello(boot_epoch=7, synced_counter=500)) is None
    assert not again.memory.has_notes, "nothing new was heard"


def test_s7_pings_move_the_memory_on_and_are_written_down_now_and_then() -> None:
    door = Door()
    door.gate.judge(hello(synced_counter=500))
    door.save()
    door.gate.heard(2, 600)
    assert not door.memory.has_notes, "an idle cluster would write for ever"
    door.gate.heard(2, 1600)
    assert door.memory.has_notes
    door.save()
    assert Door(door.disk).memory.highest("store-2") == 1600
    assert door.gate.judge(hello(boot_epoch=6, synced_counter=1500)) is not None


def test_hellos_of_one_start_may_overtake_each_other() -> None:
    door = Door()
    assert door.gate.judge(hello(synced_counter=3)) is None
    assert door.gate.judge(hello(synced_counter=1)) is None
    assert not door.alarms


def test_a_hello_of_an_earlier_start_is_refused_without_alarm() -> None:
    door = Door()
    assert door.gate.judge(hello(boot_epoch=6, synced_counter=500)) is None
    verdict = door.gate.judge(hello(boot_epoch=5, synced_counter=400))
    assert verdict is not None
    assert "a later start of store store-2 has called already" in verdict
    assert not door.alarms


def test_s11_a_second_process_on_a_store_is_refused_while_the_first_one_answers() -> None:
    """A copy of a living node's directory, started beside it, would vote in its name."""
    door = Door()
    assert door.gate.judge(hello(boot_epoch=5)) is None
    door.answering = 5
    verdict = door.gate.judge(hello(boot_epoch=6))
    assert verdict is not None
    assert "another process on store store-2 of node 2, or on a copy, answers" in verdict
    assert not door.alarms
    # The first one is not displaced, and another store of the node is another matter.
    assert door.gate.judge(hello(boot_epoch=5)) is None
    assert door.gate.judge(hello(store_uuid="new", boot_epoch=6)) is None


def test_s15_a_process_that_was_started_again_is_let_in_once_the_first_one_is_gone() -> None:
    door = Door()
    assert door.gate.judge(hello(boot_epoch=5)) is None
    assert door.gate.judge(hello(boot_epoch=6)) is None


def test_s11_a_store_that_was_replaced_is_refused() -> None:
    """Else a node that was only paused would fight its successor for the node's streams."""
    door = Door()
    door.gate.is_replaced = lambda node_id, store: (node_id, store) == (2, "store-2")
    verdict = door.gate.judge(hello(boot_epoch=6))
    assert verdict is not None
    assert "store store-2 was given up when node 2 came back with another one" in verdict
    assert door.gate.judge(hello(store_uuid="new", boot_epoch=7)) is None
    assert door.memory.highest("store-2") == 0, "what it says counts for nothing"


def test_another_store_of_the_node_has_a_count_of_its_own() -> None:
    door = Door()
    door.gate.judge(hello(synced_counter=500))
    assert door.gate.judge(hello(store_uuid="new", synced_counter=1)) is None


def test_s15_every_start_has_a_new_epoch_even_if_the_note_of_the_last_was_lost() -> None:
    disk = DictDisk()
    first, note = next_boot_epoch(disk, clock_ms=1000)
    lost, _note = next_boot_epoch(disk, clock_ms=1001)
    disk.write(note)
    clock_stands_still, _note = next_boot_epoch(disk, clock_ms=1000)
    assert first < lost
    assert clock_stands_still > first


def test_a_batch_of_notes_is_empty_when_nothing_is_new() -> None:
    assert not StoreMemory(DictDisk()).notes()
    assert isinstance(StoreMemory(DictDisk()).notes(), WriteBatch)
