"""What keeps sessions, and what ends them: leases, news, coordinators that move (S25)."""

from __future__ import annotations

import asyncio
from typing import cast

import pytest

from rakit.node.errors import RakitError, reason_name
from rakit.node.groups import gateway, lease
from rakit.node.groups.gateway import Coordinators
from rakit.peer.v1.coordinator_service_pb2 import JoinMember, MemberAnswer
from tests.node.groups.world import Coordinator, Node, join_of, node
from tests.node.metadata.machines import until


@pytest.fixture
def short_leases(monkeypatch: pytest.MonkeyPatch) -> float:
    """Leases of half a second, renewed ten times as often."""
    monkeypatch.setattr(lease, "LEASE_S", 0.5)
    monkeypatch.setattr(gateway, "LEASE_S", 0.5)
    monkeypatch.setattr(gateway, "SYNC_WAIT_S", 0.05)
    monkeypatch.setattr(gateway, "SYNC_SLACK_S", 0.1)
    return 0.5


def unavailable(error: RakitError | None) -> str:
    assert error is not None
    assert error.rule.retriable
    assert reason_name(error.reason) == "NODE_UNAVAILABLE"
    return error.message


async def test_s25_a_gateway_cut_off_from_the_coordinator_ends_its_streams(
    short_leases: float,
) -> None:
    async with node() as it:
        it.logs.put(10, 1)
        member = await it.join(0)
        await member.client.hears("0: 0-1")
        cut_at = asyncio.get_running_loop().time()
        it.coordinator.is_reachable = False
        error = await member.end()
        lasted = asyncio.get_running_loop().time() - cut_at
        assert "Resume on another node" in unavailable(error)
        assert lasted < short_leases + 0.3
        it.coordinator.is_reachable = True
        again = it.open()
        again.client.send(join=join_of(resume_token=member.token))
        await again.client.hears("resumed", "assigned 0@0")


async def test_s25_nothing_is_sent_after_the_lease_whatever_the_process_did_meanwhile() -> None:
    async with node() as it:
        member = await it.join(0)
        await member.client.hears("assigned 0@0")
        session = member.session._session
        # As if the process had not been scheduled for so long: nothing was done meanwhile.
        session.lease.until = asyncio.get_running_loop().time() - 0.001
        session.serve_until_least = session.lease.until
        it.coordinator.is_reachable = False
        it.coordinator.changed()
        it.logs.put(10, 1)
        unavailable(await member.end())
        assert member.client.delivered(0) == []


async def test_s25_records_that_wait_for_a_slow_client_are_dropped_with_the_lease() -> None:
    async with node() as it:
        it.logs.put(10, 1)
        member = await it.join(0)
        await member.client.hears("0: 0-1")
        # The answer to a commit is what the client does not take; the records wait behind it.
        member.client.reads.clear()
        member.client.commit(1, (0, 1))
        await until(member.session._member.outbox._writing.locked)
        it.logs.put(10, 1)
        await until(lambda: it.budget.held_bytes > 0)
        session = member.session._session
        session.lease.until = asyncio.get_running_loop().time() - 0.001
        it.coordinator.is_reachable = False
        member.client.reads.set()
        await member.client.hears("committed 1")
        await until(lambda: it.budget.held_bytes == 0)
        assert member.client.delivered(0) == [0]


async def test_s25_a_lease_goes_on_while_renewals_are_confirmed(short_leases: float) -> None:
    async with node() as it:
        member = await it.join(0)
        await asyncio.sleep(3 * short_leases)
        it.logs.put(10, 1)
        await member.client.hears("0: 0-1")


async def test_s25_an_answer_that_comes_late_renews_from_when_it_was_asked_for(
    short_leases: float,
) -> None:
    class Late(Coordinator):
        async def sync(self, partition: int, request: object, give_up: float) -> object:  # type: ignore[override]
            answer = await super().sync(partition, request, give_up)  # type: ignore[arg-type]
            await asyncio.sleep(0.7 * short_leases)
            return answer

    it = Node(Late())
    try:
        member = await it.join(0)
        unavailable(await member.end())
        assert it.coordinator.syncs
    finally:
        await it.close()


async def test_a_join_that_took_longer_than_a_lease_serves_after_the_first_renewal(
    short_leases: float,
) -> None:
    class Slow(Coordinator):
        async def join(self, request: object, give_up: float) -> object:  # type: ignore[override]
            await asyncio.sleep(short_leases + 0.05)
            return await super().join(request, give_up)  # type: ignore[arg-type]

    it = Node(Slow())
    try:
        it.logs.put(10, 1)
        member = await it.join(0)
        await member.client.hears("0: 0-1")
    finally:
        await it.close()


async def test_a_coordinator_that_moves_is_nothing_that_members_hear_of() -> None:
    async with node() as it:
        member = await it.join(0)
        await member.client.hears("assigned 0@0")
        successor = Coordinator()
        successor.members = it.coordinator.members
        it.coordinator.is_reachable = False
        it.coordinator.changed()
        await asyncio.sleep(0.2)
        client = cast("Coordinators", successor)
        it.gateway.client = client
        for each in it.gateway._links.values():
            each._client = client
        await until(lambda: bool(successor.syncs))
        it.logs.put(10, 1)
        await member.client.hears("0: 0-1")
        assert member.client.told == ["joined", "assigned 0@0", "0: 0-1"]
        it.coordinator = successor
        successor.revoke(member.id, 0)
        await member.client.hears("revoking 0 1")


async def test_a_new_member_is_renewed_at_once_though_a_call_waits() -> None:
    async with node() as it:
        await it.join()
        await until(lambda: len(it.coordinator.syncs) == 1)
        await it.join()
        asked_at = asyncio.get_running_loop().time()
        await until(lambda: len(it.coordinator.syncs[-1].members) == 2)
        assert asyncio.get_running_loop().time() - asked_at < gateway.SYNC_WAIT_S / 2
        assert it.coordinator.syncs_now_max == 1


async def test_members_that_come_together_are_renewed_together() -> None:
    async with node() as it:
        await it.join()
        await until(lambda: len(it.coordinator.syncs) == 1)
        for _ in range(20):
            await it.join()
            await asyncio.sleep(0.001)
        await until(lambda: len(it.coordinator.syncs[-1].members) == 21)
        assert len(it.coordinator.syncs) < 10


async def test_news_come_while_a_call_waits() -> None:
    async with node() as it:
        member = await it.join()
        await until(lambda: it.coordinator.syncs_now == 1)
        asked_at = asyncio.get_running_loop().time()
        it.coordinator.give(member.id, 0)
        await member.client.hears("assigned 0@0")
        assert asyncio.get_running_loop().time() - asked_at < gateway.SYNC_WAIT_S / 2


async def test_how_long_a_member_is_busy_is_told() -> None:
    async with node() as it:
        it.logs.put(10, 2)
        member = await it.join(0)
        await member.client.hears("0: 0-2")
        await asyncio.sleep(0.1)
        await until(lambda: it.coordinator.syncs[-1].members[0].processing_ms >= 100)
        member.client.commit(1, (0, 1))
        await member.client.hears("committed 1")
        # It is at work, and something is left to do: the time begins anew.
        assert 0 <= member.session._session.processing_ms() < 100
        await asyncio.sleep(0.02)
        assert member.session._session.processing_ms() > 0
        member.client.commit(2, (0, 2))
        await member.client.hears("committed 2")
        await asyncio.sleep(0.02)
        assert member.session._session.processing_ms() == 0


async def test_a_client_that_grants_all_that_it_got_is_not_busy() -> None:
    async with node() as it:
        it.logs.put(10, 1)
        member = await it.join(0, credit_bytes=1000)
        await member.client.hears("0: 0-1")
        assert member.session._member.processing.since is not None
        member.client.grant(member.client.answers[-1].records.charged_bytes)
        await until(lambda: member.session._member.processing.since is None)


async def test_the_end_of_a_node_waits_until_its_sessions_are_detached() -> None:
    async with node() as it:
        member = await it.join(0)
        member.running.cancel()
        await asyncio.gather(member.running, return_exceptions=True)
        await it.gateway.close()
        assert [each.detach for each in it.coordinator.left] == [True]


async def test_s25_members_that_come_and_go_do_not_keep_others_from_being_renewed(
    short_leases: float,
) -> None:
    """Every PollGroup is such a one."""
    async with node() as it:
        member = await it.join(0)
        await member.client.hears("assigned 0@0")
        loop = asyncio.get_running_loop()
        until_s = loop.time() + 3 * short_leases
        while loop.time() < until_s:
            polled = await it.gateway.join(join_of(), "", loop.time() + 1, polls=True)
            await asyncio.sleep(0.005)
            it.gateway.forget(polled)
            assert not member.running.done(), "its stream ended"


async def test_whoever_gives_its_first_join_up_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    async with node() as it:
        asked: list[JoinMember] = []

        async def join(request: JoinMember, _give_up: float) -> MemberAnswer:
            asked.append(request)
            await asyncio.Event().wait()
            raise NotImplementedError

        monkeypatch.setattr(it.coordinator, "join", join)
        for member_id in ("", "m7"):
            joining = asyncio.create_task(it.gateway.join(join_of(), member_id, 1.0, polls=True))
            await asyncio.sleep(0)
            joining.cancel()
            await asyncio.gather(joining, return_exceptions=True)
        await until(lambda: bool(it.coordinator.left))
        (left,) = it.coordinator.left
        assert (left.member_id, left.session_id) == (asked[0].session_id, asked[0].session_id)
        assert not left.detach, "one that resumed goes on elsewhere"
