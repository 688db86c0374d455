"""The coordinator: sessions, leases and deadlines in virtual time, over the real state machine."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable
from typing import Any

import pytest
from google.rpc.error_details_pb2 import ErrorInfo

from rakit.api.v1 import error_pb2
from rakit.api.v1.group_service_pb2 import JoinGroup
from rakit.node.errors import RakitError, from_status
from rakit.node.groups import intake, limits, reconcile
from rakit.peer.v1 import coordinator_service_pb2 as wire
from tests.node.groups.virtual import Member, World, run, until


async def refused(call: Awaitable[Any]) -> RakitError:
    with pytest.raises(RakitError) as caught:
        await call
    return caught.value


def fence_of(answer: wire.MemberAnswer) -> str:
    """Why a member's session is over, as its gateway is told."""
    info = ErrorInfo()
    assert answer.error.details[0].Unpack(info)
    assert info.reason == "MEMBER_FENCED"
    assert from_status(answer.error).message
    return str(info.metadata["fence_reason"])


def test_many_commits_that_wait_become_one_entry() -> None:
    async def main() -> None:
        world = World(t=1)
        await asyncio.gather(*(world.commit(f"g{at}", at) for at in range(200)))
        assert len(world.host.entries) <= 2
        assert len(world.host.replica.machine.state.groups) == 200

    run(main())


def test_what_exceeds_one_entry_goes_into_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "ENTRY_BYTES_MAX", 100)

    async def main() -> None:
        world = World(t=1)
        await asyncio.gather(*(world.commit(f"g{at}", at) for at in range(50)))
        assert len(world.host.entries) >= 5
        assert max(len(each) for each in world.host.entries) < 200

    run(main())


def test_too_much_that_waits_is_throttled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "WAITING_COUNT_MAX", 10)

    async def main() -> None:
        world = World(t=1)
        calls = [world.commit("g", at) for at in range(20)]
        done = await asyncio.gather(*calls, return_exceptions=True)
        errors = [each for each in done if isinstance(each, RakitError)]
        assert len(errors) == 10
        assert {each.reason for each in errors} == {error_pb2.ERROR_REASON_THROTTLED}
        assert not any(each.may_be_applied for each in errors)

    run(main())


def test_two_members_share_and_a_leaver_gives_back() -> None:
    async def main() -> None:
        world = World(t=4)
        first, second = await world.join(), await world.join()
        assert (len(first.owned), len(second.owned)) == (4, 0)
        second.keep()
        await first.sync()
        assert len(first.answer.revoking) == 2
        await first.let_go()
        await until(lambda: len(second.owned) == 2)
        assert first.owned.isdisjoint(second.owned)
        await second.leave()
        await first.sync(wait_ms=1_000)
        assert len(first.owned) == 4
        assert await until(lambda: second.answer.HasField("error")) < 2
        assert fence_of(second.answer) == "LEFT"

    run(main())


def test_a_sync_waits_for_news_and_comes_back_at_once_with_them() -> None:
    async def main() -> None:
        world = World(t=2)
        member = await world.join()
        begun = world.loop.time()
        answer = await member.sync(wait_ms=800)
        assert not answer.members
        assert 0.8 <= world.loop.time() - begun < 0.9
        assert answer.lease_ms == limits.LEASE_MS
        waiting = asyncio.create_task(member.sync(wait_ms=2_000))
        await asyncio.sleep(0.5)
        world.create("u", 1)
        await world.join(topics=["t"])
        begun = world.loop.time()
        await waiting
        assert world.loop.time() - begun < 0.1
        assert len(member.answer.revoking) == 1

    run(main())


def test_members_whose_partitions_stay_hear_nothing_of_a_join() -> None:
    async def main() -> None:
        world = World(t=3, u=1)
        member = await world.join(topics=["u"])
        version = member.answer.version
        await world.join()
        await member.sync()
        assert member.answer.version == version

    run(main())


def test_s25_a_member_on_a_gateway_is_kept_for_longer_than_the_lease() -> None:
    async def main() -> None:
        world = World(t=2)
        member = await world.join(session_grace_ms=1_000)
        other = await world.join()
        other.keep()
        took = await until(lambda: world.owned() == {other.name: 2})
        assert limits.LEASE_MS / 1000 < limits.SERVED_S <= took < limits.SERVED_S + 1
        await member.sync()
        assert fence_of(member.answer) == "SESSION_EXPIRED"

    run(main())


def test_a_member_that_is_renewed_stays_and_one_that_was_detached_has_its_grace() -> None:
    async def main() -> None:
        world = World(t=2)
        member = await world.join(session_grace_ms=1_000)
        member.keep()
        await asyncio.sleep(30)
        assert world.owned() == {member.name: 2}
        detached = await world.join(session_grace_ms=2_000)
        await detached.leave(detach=True)
        took = await until(lambda: detached.name not in world.owned())
        assert 1.9 <= took < 2.6

    run(main())


def test_s25_a_renewal_that_no_majority_confirmed_renews_nothing() -> None:
    async def main() -> None:
        world = World(t=2)
        member = await world.join(session_grace_ms=1_000)
        begun = world.loop.time()
        await asyncio.sleep(3)
        world.host.is_cut_off = True
        error = await refused(member.sync())
        assert error.reason == error_pb2.ERROR_REASON_NO_QUORUM
        world.host.is_cut_off = False
        await until(lambda: not world.owned())
        assert world.loop.time() - begun < limits.SERVED_S + 1, "it counts from the join"

    run(main())


def test_s25_a_renewal_counts_from_its_arrival_and_not_from_its_answer() -> None:
    async def main() -> None:
        world = World(t=2)
        member = await world.join(session_grace_ms=1_000)
        arrived = world.loop.time()
        await member.sync(wait_ms=2_000)
        await until(lambda: not world.owned())
        assert world.loop.time() - arrived < limits.SERVED_S + 0.6

    run(main())


def test_s25_a_new_coordinator_gives_everybody_a_full_grace() -> None:
    async def main() -> None:
        world = World(t=2)
        member = await world.join(session_grace_ms=8_000)
        before = dict(world.owned())
        await asyncio.sleep(7)
        world.elect()
        await asyncio.sleep(7)
        assert world.owned() == before, "the same assignment afterwards"
        answer = await member.sync()
        assert not answer.members, "and nothing to tell"
        world.elect()
        assert 7.9 <= await until(lambda: not world.owned()) < 9

    run(main())


def test_a_replaced_coordinator_tells_nobody_anything() -> None:
    async def main() -> None:
        world = World(t=2)
        member = await world.join()
        old = world.coordinator
        world.elect()
        await asyncio.sleep(0)
        world.coordinator = old
        error = await refused(member.sync())
        assert error.reason == error_pb2.ERROR_REASON_NO_LEADER
        error = await refused(world.coordinator.describe(wire.DescribeGroup(group="g")))
        assert error.reason == error_pb2.ERROR_REASON_NO_LEADER

    run(main())


def test_a_member_that_is_busy_for_too_long_is_fenced() -> None:
    async def main() -> None:
        world = World(t=2)
        member = await world.join(max_processing_ms=1_000)
        member.busy_ms = 900
        assert not (await member.sync()).members
        member.busy_ms = 1_100
        await member.sync()
        assert fence_of(member.answer) == "PROCESSING_TOO_LONG"
        await until(lambda: not world.owned())

    run(main())


def test_a_member_that_does_not_let_go_is_fenced_and_its_partitions_move() -> None:
    async def main() -> None:
        world = World(t=2)
        member = await world.join(max_processing_ms=10_000)
        other = await world.join()
        member.keep()
        other.keep()
        await until(lambda: bool(member.answer.revoking))
        told = world.loop.time()
        await until(lambda: member.answer.HasField("error"))
        assert 9.5 <= world.loop.time() - told <= 11
        assert fence_of(member.answer) == "REVOKE_TOO_LONG"
        await until(lambda: world.owned() == {other.name: 2})

    run(main())


def test_the_deadline_of_a_revocation_holds_under_a_new_coordinator_too() -> None:
    async def main() -> None:
        world = World(t=2)
        member = await world.join(max_processing_ms=10_000)
        await world.join()
        await member.sync()
        assert member.answer.revoking
        world.elect()
        member.keep()
        assert 9 <= await until(lambda: member.answer.HasField("error")) <= 12
        assert fence_of(member.answer) == "REVOKE_TOO_LONG"

    run(main())


def test_a_resumed_member_keeps_what_it_has_and_the_old_attachment_is_told() -> None:
    async def main() -> None:
        world = World(t=2)
        member = await world.join()
        member.keep()
        other = await member.resume()
        assert other.answer.resumed
        assert other.owned == {0, 1}
        assert other.answer.member_epoch == member.answer.member_epoch
        await until(lambda: member.answer.HasField("error"), 2)
        assert fence_of(member.answer) == "INSTANCE_REPLACED"
        await member.leave()
        assert world.owned() == {other.name: 2}, "whoever was replaced takes nobody along"
        error = await refused(member.let_go())
        assert error.metadata["fence_reason"] == "INSTANCE_REPLACED"

    run(main())


def test_a_member_that_is_gone_cannot_be_resumed() -> None:
    async def main() -> None:
        world = World(t=2)
        member = await world.join()
        await member.leave()
        error = await refused(member.resume())
        assert error.metadata["fence_reason"] == "LEFT"
        world.elect()
        error = await refused(member.resume())
        assert error.metadata["fence_reason"] == "UNKNOWN_MEMBER"

    run(main())


def test_a_join_that_is_repeated_makes_one_member() -> None:
    async def main() -> None:
        world = World(t=2)
        member = await world.join()
        again = Member(world, "g", member.session)
        await again.attach(JoinGroup(group="g", topics=["t"]))
        assert again.name == member.name
        assert len(world.owned()) == 1

    run(main())


def test_s25_an_instance_is_taken_over_only_when_no_gateway_may_serve_it_any_more() -> None:
    async def main() -> None:
        world = World(t=2)
        old = await world.join(instance_id="pod")
        bystander = await world.join(topics=["other"])
        begun = world.loop.time()
        error = await refused(world.join(instance_id="pod"))
        assert error.reason == error_pb2.ERROR_REASON_INSTANCE_IN_USE
        await asyncio.sleep(limits.SERVED_S - 0.2)
        assert (await refused(world.join(instance_id="pod"))).reason == error.reason
        await asyncio.sleep(0.3)
        assert world.loop.time() - begun < 10, "long before its grace is over"
        new = await world.join(instance_id="pod")
        assert new.name != old.name
        assert new.owned == {0, 1}
        assert {each.partition.since_epoch for each in new.answer.owned} == {
            new.answer.member_epoch
        }
        late = await world.commit("g", 1, member=old.name, epoch=old.answer.member_epoch)
        assert list(late.reasons) == [error_pb2.ERROR_REASON_MEMBER_FENCED]
        await old.sync()
        assert fence_of(old.answer) == "INSTANCE_REPLACED"
        assert not (await bystander.sync()).members

    run(main())


def test_two_processes_with_one_instance_that_come_at_once() -> None:
    async def main() -> None:
        world = World(t=2)
        joins = (world.join(instance_id="pod"), world.join(instance_id="pod"))
        done = await asyncio.gather(*joins, return_exceptions=True)
        (error,) = [each for each in done if isinstance(each, RakitError)]
        assert error.reason == error_pb2.ERROR_REASON_INSTANCE_IN_USE
        assert len(world.owned()) == 1

    run(main())


def test_a_member_that_polls_has_until_its_next_call() -> None:
    async def main() -> None:
        world = World(t=2)
        member = await world.join(polls=True, max_processing_ms=20_000, session_grace_ms=1_000)
        await member.leave(detach=True)
        assert 19.9 <= await until(lambda: not world.owned()) < 21

    run(main())


def test_topics_that_come_and_go_while_subscribed() -> None:
    async def main() -> None:
        world = World(t=1)
        member = await world.join(topics=["t", "later"], topic_patterns=["x.*"])
        member.keep()
        world.create("later", 2)
        await until(lambda: len(member.answer.owned) == 3, 3)
        world.create("x.1", 1)
        await until(lambda: len(member.answer.owned) == 4, 3)
        world.delete("later")
        await until(lambda: len(member.answer.revoking) == 2, 3)
        assert {each.topic for each in member.answer.owned} == {"t", "later", "x.1"}
        await member.let_go()
        assert len(member.answer.owned) == 2

    run(main())


def test_a_commit_whose_entry_is_lost_is_unknown_and_one_that_waits_is_not_applied() -> None:
    async def main() -> None:
        world = World(t=1)
        await asyncio.sleep(0)
        world.host.loses = True
        first = asyncio.create_task(world.commit("g", 1))
        await asyncio.sleep(0.001)
        second = asyncio.create_task(world.commit("h", 1))
        error = await refused(first)
        assert error.reason == error_pb2.ERROR_REASON_OUTCOME_UNKNOWN
        error = await refused(second)
        assert error.may_be_applied
        third = asyncio.create_task(world.commit("i", 1))
        await asyncio.sleep(0)
        world.end()
        error = await refused(third)
        assert error.reason == error_pb2.ERROR_REASON_NO_LEADER
        assert not error.may_be_applied

    run(main())


def test_what_the_host_refuses_is_throttled_and_an_expiry_is_tried_again() -> None:
    async def main() -> None:
        world = World(t=1)
        member = await world.join(session_grace_ms=1_000)
        world.host.refuses = True
        error = await refused(world.commit("h", 1))
        assert error.reason == error_pb2.ERROR_REASON_THROTTLED
        await asyncio.sleep(10)
        assert world.owned() == {member.name: 1}
        assert (await refused(member.resume())).metadata["fence_reason"] == "SESSION_EXPIRED"
        world.host.refuses = False
        assert await until(lambda: not world.owned()) < 1

    run(main())


def test_a_process_that_stood_still_blames_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        world = World(t=1)
        member = await world.join(session_grace_ms=1_000)
        real, offset = world.loop.time, 0.0
        monkeypatch.setattr(world.loop, "time", lambda: real() + offset)
        await asyncio.sleep(1)
        offset = 60.0
        await asyncio.sleep(1)
        assert world.owned() == {member.name: 1}
        await until(lambda: not world.owned(), 10)

    run(main())


def test_a_full_group_takes_no_more_members(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MEMBERS_A_GROUP_COUNT_MAX", 2)

    async def main() -> None:
        world = World(t=1)
        joins = [world.join() for _ in range(4)]
        done = await asyncio.gather(*joins, return_exceptions=True)
        errors = [each for each in done if isinstance(each, RakitError)]
        assert [each.reason for each in errors] == [error_pb2.ERROR_REASON_GROUP_FULL] * 2

    run(main())


def test_a_group_that_would_be_one_too_many_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rakit.node.groups.state.GROUPS_A_PARTITION_COUNT_MAX", 1)

    async def main() -> None:
        world = World(t=1)
        done = await asyncio.gather(world.join("a"), world.join("b"), return_exceptions=True)
        (error,) = [each for each in done if isinstance(each, RakitError)]
        assert error.reason == error_pb2.ERROR_REASON_GROUP_FULL

    run(main())


def test_idle_groups_are_forgotten_after_a_week_and_groups_with_members_never(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shift_ms = 0

    def clock_ms(_world: World) -> int:
        return 1_700_000_000_000 + shift_ms

    monkeypatch.setattr(World, "clock_ms", clock_ms)

    async def main() -> None:
        nonlocal shift_ms
        world = World(t=1)
        await world.commit("idle", 5)
        member = await world.join("busy")
        member.keep()
        groups = world.host.replica.machine.state.groups
        shift_ms = limits.RETENTION_MS - 1
        await asyncio.sleep(130)
        assert set(groups) == {"idle", "busy"}
        shift_ms = limits.RETENTION_MS + 1
        await asyncio.sleep(130)
        assert set(groups) == {"busy"}

    run(main())


def test_offsets_of_deleted_topics_are_forgotten() -> None:
    async def main() -> None:
        world = World(t=1, u=1)
        await world.commit("g", 5, topic_id=1)
        await world.commit("g", 5, topic_id=2)
        await world.commit("g", 5, topic_id=3)
        world.delete("t")
        await asyncio.sleep(130)
        offsets = world.host.replica.machine.state.groups["g"].offsets
        assert set(offsets) == {(2, 0), (3, 0)}, "the third is news that this node has not heard"

    run(main())


def test_a_group_is_dropped_when_it_has_no_members() -> None:
    async def main() -> None:
        world = World(t=1)
        member = await world.join()
        drop = wire.DropGroup(group="g")
        error = await refused(world.coordinator.drop(drop))
        assert error.reason == error_pb2.ERROR_REASON_GROUP_ACTIVE
        await member.leave()
        await world.coordinator.drop(drop)
        error = await refused(world.coordinator.drop(drop))
        assert error.reason == error_pb2.ERROR_REASON_UNKNOWN_GROUP

    run(main())


def test_s25_a_member_whose_end_is_decided_is_not_renewed_any_more() -> None:
    """Its gateway must not get a lease that outlasts the entry which is on its way."""

    async def main() -> None:
        world = World(t=2)
        member, other = await world.join(), await world.join()
        member.busy_ms = 1_000_000
        late = Member(world, "g", member.session)
        late.answer.CopyFrom(member.answer)
        world.host.entry_s = 1.0
        waiting = asyncio.create_task(late.sync())
        await asyncio.sleep(0)
        await member.sync()
        assert fence_of(member.answer) == "PROCESSING_TOO_LONG"
        assert member.name in world.owned(), "it is decided, and the entry is still under way"
        answer = await waiting
        assert fence_of(answer.members[0].member) == "PROCESSING_TOO_LONG"
        await until(lambda: world.owned() == {other.name: 2})

    run(main())


def test_a_resumed_session_does_not_put_off_the_deadline_of_a_revocation() -> None:
    async def main() -> None:
        world = World(t=2)
        member = await world.join(max_processing_ms=10_000)
        other = await world.join()
        other.keep()
        await member.sync()
        assert member.answer.revoking
        begun = world.loop.time()
        while other.name not in world.owned() or world.owned()[other.name] < 2:
            assert world.loop.time() < begun + 12, "each attachment begins the deadline anew"
            if member.name in world.owned() and world.loop.time() < begun + 9:
                member = await member.resume()
            await asyncio.sleep(1)

    run(main())


def test_a_change_that_was_refused_is_tried_again_without_anybody_asking() -> None:
    async def main() -> None:
        world = World(t=1)
        member = await world.join(topics=["t", "later"])
        member.keep()
        world.host.refuses = True
        world.create("later", 1)
        await asyncio.sleep(2)
        assert world.owned() == {member.name: 1}
        world.host.refuses = False
        await until(lambda: len(member.answer.owned) == 2, 3)

    run(main())


def test_a_commit_of_an_attachment_that_was_replaced_does_not_take_offsets_back() -> None:
    async def main() -> None:
        world = World(t=1)
        member = await world.join()
        other = await member.resume()
        epoch = other.answer.member_epoch

        async def commit(offset: int, by: Member) -> None:
            result = await world.commit(
                "g", offset, member=by.name, epoch=epoch, session=by.session
            )
            assert not result.refused

        await commit(9, other)
        error = await refused(commit(5, member))
        assert error.metadata["fence_reason"] == "INSTANCE_REPLACED"
        offsets = world.host.replica.machine.state.groups["g"].offsets
        assert [each.offset for each in offsets.values()] == [9]
        assert all(other.session.encode() not in each for each in world.host.entries[-1:])

    run(main())


def test_a_late_detachment_claims_nothing_under_a_new_coordinator() -> None:
    async def main() -> None:
        world = World(t=1)
        member = await world.join()
        other = await member.resume()
        world.elect()
        await member.leave(detach=True)
        await other.sync()
        assert not other.answer.HasField("error"), "the session is its own"
        await until(lambda: "g" in world.host.replica.machine.state.groups)
        other.keep()
        await asyncio.sleep(15)
        assert world.owned() == {other.name: 1}

    run(main())


def test_whoever_gives_a_join_up_leaves_though_it_is_only_on_its_way() -> None:
    async def main() -> None:
        world = World(t=2)
        stays = await world.join(polls=True)
        world.host.entry_s = 1.0
        joining = asyncio.create_task(world.join(polls=True))
        await asyncio.sleep(0.5)
        (session,) = [each.session_id for each in world.asked if each.session_id != stays.session]
        joining.cancel()
        gone = Member(world, "g", session)
        gone.answer.member_id = session
        await gone.leave()
        await asyncio.sleep(5)
        assert world.owned() == {stays.name: 2}

    run(main())


async def test_the_change_of_a_large_group_is_decided_beside_the_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is slow here holds up neither renewals nor the end of the leadership."""
    entered, go = threading.Event(), threading.Event()

    def slow(*arguments: Any) -> Any:
        entered.set()
        assert go.wait(5), "the loop stood still"
        return reconcile.next_change(*arguments)

    world = World(t=2)
    member = await world.join()
    monkeypatch.setattr(intake, "LARGE_COUNT", 0)
    monkeypatch.setattr(intake, "next_change", slow)
    joining = asyncio.create_task(world.join())
    await until(entered.is_set)
    await member.sync()
    go.set()
    other = await joining
    assert world.owned() == {member.name: 2, other.name: 0}
    entered.clear()
    go.clear()
    joining = asyncio.create_task(world.join())
    await until(entered.is_set)
    world.end()
    error = await refused(joining)
    assert error.reason == error_pb2.ERROR_REASON_NO_LEADER
    assert not error.may_be_applied
    go.set()
