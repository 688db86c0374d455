"""How much a member may be sent (contract 16)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rakit.api.v1 import error_pb2
from rakit.node.errors import RakitError
from rakit.node.groups import credit
from rakit.node.groups.credit import Granted, Window, credit_of

KEY = ("t", 0)
OTHER = ("t", 1)


def test_a_window_is_refilled_by_commits() -> None:
    window = Window(100)
    window.charge(KEY, 0, 10, 60)
    window.charge(KEY, 10, 20, 30)
    assert window.left_bytes == 10
    window.committed(KEY, 10)
    assert window.left_bytes == 70
    window.committed(KEY, 20)
    assert window.left_bytes == 100
    assert window.is_untouched


def test_a_commit_within_a_delivery_gives_back_its_part() -> None:
    window = Window(100)
    window.charge(KEY, 0, 10, 50)
    window.committed(KEY, 4)
    assert window.left_bytes == 70
    window.committed(KEY, 4)
    window.committed(KEY, 2)
    assert window.left_bytes == 70
    window.committed(KEY, 10)
    assert window.left_bytes == 100


def test_a_commit_of_one_partition_says_nothing_about_another() -> None:
    window = Window(100)
    window.charge(KEY, 0, 10, 50)
    window.charge(OTHER, 0, 10, 20)
    window.committed(KEY, 100)
    assert window.left_bytes == 80
    assert not window.is_untouched


def test_a_partition_that_was_taken_leaves_the_window() -> None:
    window = Window(100)
    window.charge(KEY, 0, 10, 150)
    assert window.left_bytes == -50
    window.forget(KEY)
    window.forget(KEY)
    assert window.left_bytes == 100


def test_countless_small_deliveries_are_not_all_remembered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(credit, "DELIVERIES_COUNT_MAX", 4)
    window = Window(1000)
    for at in range(100):
        window.charge(KEY, at, at + 1, 3)
    assert len(window._sent[KEY]) == 4
    assert window.left_bytes == 700
    window.committed(KEY, 100)
    assert window.left_bytes == 1000


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(1, 500)), max_size=30), st.data())
def test_every_byte_comes_back_once_everything_is_committed(
    sent: list[tuple[int, int]], data: st.DataObject
) -> None:
    window = Window(10_000)
    at = 0
    for count, size in sent:
        window.charge(KEY, at, at + count, size)
        at += count
        window.committed(KEY, data.draw(st.integers(0, at)))
        assert window.left_bytes <= 10_000
    window.committed(KEY, at)
    assert window.left_bytes == 10_000


def test_a_window_takes_no_grants() -> None:
    with pytest.raises(RakitError, match="refilled by commits") as caught:
        Window().grant(5)
    assert caught.value.reason == error_pb2.ERROR_REASON_INVALID_REQUEST


def test_a_grant_adds_and_commits_do_not() -> None:
    given = Granted(100)
    given.charge(KEY, 0, 10, 130)
    assert given.left_bytes == -30
    given.committed(KEY, 10)
    assert given.left_bytes == -30
    assert not given.is_untouched
    given.grant(130)
    assert given.left_bytes == 100
    assert given.is_untouched


def test_more_than_64_mib_outstanding_is_refused_and_changes_nothing() -> None:
    given = Granted(64 << 20)
    with pytest.raises(RakitError) as caught:
        given.grant(1)
    assert caught.value.reason == error_pb2.ERROR_REASON_CREDIT_EXCEEDED
    assert caught.value.metadata == {"limit": "67108864", "actual": "67108865"}
    given.charge(KEY, 0, 1, 1)
    given.grant(1)
    with pytest.raises(RakitError, match="67,108,865 bytes would be granted"):
        credit_of((64 << 20) + 1)


@pytest.mark.parametrize("size", [0, -1])
def test_a_grant_of_nothing_is_refused(size: int) -> None:
    with pytest.raises(RakitError, match="must be positive"):
        Granted(1).grant(size)


def test_without_a_credit_there_is_a_window_of_4_mib() -> None:
    assert credit_of(0).left_bytes == 4 << 20
    assert credit_of(5).left_bytes == 5
