"""For how long a gateway serves without hearing from the coordinator (S25)."""

from __future__ import annotations

from rakit.node.groups.lease import LEASE_S, Lease
from rakit.node.groups.limits import LEASE_MS, SERVED_S


def test_a_lease_counts_from_when_the_request_was_sent() -> None:
    lease = Lease()
    assert not lease.holds(0.0)
    lease.confirmed(sent_at=10.0)
    assert lease.holds(10.0 + LEASE_S - 0.001)
    assert not lease.holds(10.0 + LEASE_S)


def test_an_answer_that_comes_late_does_not_shorten_a_lease() -> None:
    lease = Lease()
    lease.confirmed(sent_at=12.0)
    lease.confirmed(sent_at=10.0)
    assert lease.until == 12.0 + LEASE_S


def test_a_coordinator_may_give_a_shorter_lease_and_no_longer_one() -> None:
    lease = Lease()
    lease.confirmed(sent_at=10.0, lease_ms=1_500)
    assert lease.until == 11.5
    lease.confirmed(sent_at=10.0, lease_ms=60_000)
    assert lease.until == 10.0 + LEASE_S


def test_a_lease_is_over_before_the_coordinator_may_reassign() -> None:
    assert LEASE_MS / 1000 <= LEASE_S < SERVED_S
