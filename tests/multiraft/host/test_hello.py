"""Who is let in, and how a store that went back in time is found out (S7)."""

from __future__ import annotations

import pytest

from rakit.multiraft.hello import (
    DATA,
    FEATURE_LEVEL,
    Gate,
    NodeIdentity,
    Rollback,
    StoreMemory,
    StoreStart,
    next_boot_epoch,
)
from rakit.peer.v1 import raft_service_pb2 as wire
from tests.multiraft.host.support import DictDisk

ME = NodeIdentity("cluster", 1, "my-store", 10, 66)


def hello(**changes: object) -> wire.Hello:
    fields: dict[str, object] = {
        "cluster_id": "cluster",
        "from_node_id": 2,
        "to_node_id": 1,
        "store_uuid": "store-2",
        "boot_epoch": 5,
        "synced_counter": 100,
        "lane": DATA,
        "opened_counter": 99,
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
        self.disk.write(self.memory.take_notes())

    def restarted(self) -> Door:
        """The same node after a restart of its process, which remembers what is on the disk."""
        return Door(self.disk)

    def lets_in(self, **changes: object) -> bool:
        return self.gate.judge(hello(**changes)) is None


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
        ({"store_uuid": "u" * 65}, "impossible store or count"),
        ({"synced_counter": -1}, "impossible store or count"),
        ({"opened_counter": -1}, "impossible store or count"),
    ],
)
def test_anybody_else_is_refused_with_a_reason(changes: dict[str, object], text: str) -> None:
    verdict = Door().gate.judge(hello(**changes), expected_node_id=2)
    assert verdict is not None
    assert text in verdict


def test_the_own_hello_says_who_this_is() -> None:
    made = Door().gate.hello(2, DATA)
    assert (made.cluster_id, made.from_node_id, made.to_node_id) == ("cluster", 1, 2)
    assert (made.store_uuid, made.boot_epoch) == ("my-store", 10)
    assert (made.opened_counter, made.synced_counter) == (66, 77)


def test_s7_a_store_that_went_back_is_refused_and_reported() -> None:
    door = Door()
    assert door.lets_in(synced_counter=500)
    verdict = door.gate.judge(hello(boot_epoch=6, opened_counter=400, synced_counter=401))
    assert verdict is not None
    assert "had synced 500 writes and came back with 400" in verdict
    assert "start it with an empty one" in verdict
    assert door.alarms == [Rollback(2, "store-2", 500, 400)]
    assert door.memory.rollbacks() == door.alarms


def test_s7_what_a_rolled_back_store_writes_afterwards_does_not_let_it_in() -> None:
    door = Door()
    assert door.lets_in(synced_counter=500)
    # It wrote and synced a lot before it called for the first time.
    assert not door.lets_in(boot_epoch=6, opened_counter=400, synced_counter=9000)
    door.gate.heard(2, 5, 9000)
    assert not door.lets_in(boot_epoch=6, opened_counter=400, synced_counter=9500)
    # The next start opens with all that the refused one wrote.
    door.save()
    again = door.restarted()
    for epoch in (7, 8):
        assert not again.lets_in(boot_epoch=epoch, opened_counter=9500, synced_counter=9600)
    assert again.memory.rollbacks() == [Rollback(2, "store-2", 500, 400)]
    assert again.lets_in(store_uuid="an empty directory", synced_counter=1)


def test_s7_that_a_store_went_back_does_not_wait_to_be_noted() -> None:
    door = Door()
    door.lets_in(synced_counter=500)
    door.save()
    door.lets_in(boot_epoch=6, opened_counter=400, synced_counter=401)
    assert door.memory.is_urgent
    door.save()
    assert not door.memory.is_urgent


def test_s7_what_was_heard_is_remembered_over_a_restart() -> None:
    door = Door()
    door.lets_in(synced_counter=500)
    assert door.memory.is_urgent
    door.save()
    assert not door.restarted().lets_in(boot_epoch=6, opened_counter=499, synced_counter=500)
    again = door.restarted()
    assert again.lets_in(boot_epoch=6, opened_counter=500, synced_counter=500)
    again.save()
    assert again.lets_in(boot_epoch=6, opened_counter=500, synced_counter=500)
    assert not again.memory.has_news, "nothing new was heard"


def test_s7_a_node_that_restarts_lets_in_a_store_that_went_on_meanwhile() -> None:
    """The peer's start is the one that the memory was heard of, though it opened with less."""
    door = Door()
    assert door.lets_in(opened_counter=99, synced_counter=100)
    door.gate.heard(2, 5, 5000)
    door.save()
    again = door.restarted()
    assert again.lets_in(opened_counter=99, synced_counter=5100)
    again.save()
    # Another start of that store is another matter, also where a clock gave it the same number.
    assert not again.restarted().lets_in(opened_counter=98, synced_counter=5200)


def test_s7_pings_move_the_memory_on_with_whatever_is_written() -> None:
    door = Door()
    door.lets_in(synced_counter=500)
    door.save()
    door.gate.heard(2, 5, 500)
    assert not door.memory.has_news, "an idle cluster would write for ever"
    door.gate.heard(2, 5, 501)
    assert door.memory.has_news
    assert not door.memory.is_urgent, "it waits for a batch that is written anyway"
    assert len(door.memory.take_notes()) == 1
    assert not door.memory.has_news
    door.gate.heard(2, 5, 1600)
    assert door.memory.is_urgent, "but not for ever"
    door.save()
    assert door.restarted().memory.highest("store-2") == 1600
    assert not door.lets_in(boot_epoch=6, opened_counter=1599, synced_counter=1600)


def test_hellos_of_one_start_may_overtake_each_other() -> None:
    door = Door()
    assert door.lets_in(opened_counter=0, synced_counter=3)
    assert door.lets_in(opened_counter=0, synced_counter=1)
    assert not door.alarms
    assert door.memory.highest("store-2") == 3


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


def test_s11_an_old_copy_that_asks_while_the_first_one_answers_costs_that_one_nothing() -> None:
    door = Door()
    assert door.gate.judge(hello(boot_epoch=5, synced_counter=500)) is None
    copy = StoreStart(2, "store-2", boot_epoch=6, opened_counter=400)
    door.answering = 5
    assert door.gate.rollback_of(copy) is None
    assert door.gate.judge(hello(boot_epoch=5, synced_counter=500)) is None
    door.answering = 0
    assert door.gate.rollback_of(copy) == Rollback(2, "store-2", 500, 400)


def test_s11_an_old_copy_that_comes_first_after_a_restart_costs_the_original_nothing_for_long() -> (
    None
):
    door = Door()
    assert door.lets_in(boot_epoch=5, opened_counter=0, synced_counter=500)
    door.save()
    again = door.restarted()
    assert not again.lets_in(boot_epoch=9, opened_counter=400, synced_counter=401)
    again.save()
    assert again.memory.rollbacks() == [Rollback(2, "store-2", 500, 400)]
    # The original asks whether it still belongs, and greets.
    assert again.gate.rollback_of(StoreStart(2, "store-2", 5, 0)) is None
    assert again.lets_in(boot_epoch=5, opened_counter=0, synced_counter=600)
    assert not again.memory.rollbacks()
    again.save()
    assert not again.restarted().memory.rollbacks()
    again.answering = 5
    assert not again.lets_in(boot_epoch=9, opened_counter=400, synced_counter=401)
    again.answering = 0
    assert again.lets_in(boot_epoch=11, opened_counter=700, synced_counter=701)


def test_s7_a_word_of_an_earlier_process_counts_for_nothing() -> None:
    """That process may have run on the store which this one replaced, and written far more."""
    door = Door()
    assert door.lets_in(boot_epoch=5, synced_counter=90_000)
    assert door.lets_in(store_uuid="new", boot_epoch=6, opened_counter=0, synced_counter=100)
    door.gate.heard(2, 5, 90_100)
    door.gate.heard(2, 6, 200)
    assert door.memory.highest("new") == 200
    assert door.lets_in(store_uuid="new", boot_epoch=7, opened_counter=400, synced_counter=401)


def test_s7_a_start_is_known_by_its_own_number_even_if_it_had_nothing_new_to_say() -> None:
    door = Door()
    assert door.lets_in(boot_epoch=5, opened_counter=0, synced_counter=500)
    assert door.lets_in(boot_epoch=6, opened_counter=500, synced_counter=500)
    door.gate.heard(2, 6, 900)
    assert door.lets_in(boot_epoch=6, opened_counter=500, synced_counter=900)


def test_s15_a_process_that_was_started_again_is_let_in_once_the_first_one_is_gone() -> None:
    door = Door()
    assert door.gate.judge(hello(boot_epoch=5)) is None
    assert door.gate.judge(hello(boot_epoch=6, opened_counter=100)) is None


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
    assert door.lets_in(synced_counter=500)
    assert door.lets_in(store_uuid="new", opened_counter=0, synced_counter=1)


def test_s15_every_start_has_a_new_epoch_even_if_the_note_of_the_last_was_lost() -> None:
    disk = DictDisk()
    first, note = next_boot_epoch(disk, clock_ms=1000)
    lost, _note = next_boot_epoch(disk, clock_ms=1001)
    disk.write(note)
    clock_stands_still, _note = next_boot_epoch(disk, clock_ms=1000)
    assert first < lost
    assert clock_stands_still > first


def test_what_a_version_reads_is_told_and_remembered_of_the_newest_start() -> None:
    door = Door()
    assert door.gate.hello(2, DATA).feature_level == FEATURE_LEVEL
    assert door.memory.feature_level("store-2") == 0, "it has not greeted"
    assert not door.lets_in(feature_level=7, cluster_id="other")
    assert door.memory.feature_level("store-2") == 0
    assert door.lets_in(feature_level=7)
    assert door.memory.feature_level("store-2") == 7
    door.save()
    assert door.restarted().memory.feature_level("store-2") == 7
    assert door.lets_in(boot_epoch=6, opened_counter=100), "an earlier version, which says nothing"
    assert door.memory.feature_level("store-2") == 1
    assert not door.lets_in(feature_level=7, boot_epoch=5)
    assert door.memory.feature_level("store-2") == 1
    door.save()
    assert door.restarted().memory.feature_level("store-2") == 1
