"""Three hosts on real stores over loopback: the promises of a group, and how nodes come and go."""

# A test may look inside.
# pyright: reportPrivateUsage=false

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import uvloop

from rakit.multiraft import keys
from rakit.multiraft.barriers import BarrierLostError
from rakit.multiraft.errors import NotLeadingError, UnknownGroupError
from rakit.multiraft.host import HostStoppedError
from rakit.multiraft.machine import replica_id
from rakit.multiraft.records import decode_hard_state
from rakit.peer.v1 import raft_service_pb2 as wire
from rakit.raft import ConfChange, ConfChangeSingle, ConfChangeType, ConfState, Role
from tests.multiraft.host.nodes import FAST, GROUP, Cluster, cabled
from tests.multiraft.host.support import until


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    made = Cluster(tmp_path)
    await made.start()
    yield made
    await made.stop()


async def test_a_thousand_proposals_are_applied_everywhere_in_one_order(cluster: Cluster) -> None:
    leader = await cluster.leader()
    proposals = [leader.host.propose(GROUP, b"%d" % each) for each in range(1000)]
    assert [each.entry[1] for each in proposals] == list(
        range(proposals[0].entry[1], proposals[0].entry[1] + 1000)
    )
    done = await asyncio.gather(*[each.done for each in proposals])
    assert [each.result for each in done] == list(range(1, 1001))
    assert all(each.replicas >= 2 for each in done)
    await cluster.agreed(1000)
    assert leader.journal.payloads == [b"%d" % each for each in range(1000)]


async def test_only_the_leader_takes_proposals_and_names_itself(cluster: Cluster) -> None:
    leader = await cluster.leader()
    follower = cluster.followers()[0]
    with pytest.raises(NotLeadingError) as caught:
        follower.host.propose(GROUP, b"x")
    assert caught.value.leader_replica == replica_id(leader.node_id, 1)
    with pytest.raises(UnknownGroupError):
        leader.host.propose(99, b"x")
    info = await follower.host.leaders.wait(GROUP, 5)
    assert info.node_id == leader.node_id


async def test_a_killed_leader_is_replaced_and_catches_up_when_it_returns(
    cluster: Cluster,
) -> None:
    await cluster.propose(*[b"a%d" % each for each in range(200)])
    old = await cluster.leader()
    killed_at = time.monotonic()
    await old.kill()
    await cluster.propose(b"after")
    gap = time.monotonic() - killed_at
    assert gap < 5, f"{gap:.1f} s without a leader"
    await cluster.propose(*[b"b%d" % each for each in range(200)])
    await cluster.restart(old)
    await cluster.agreed(401)


async def test_a_stopped_leader_hands_over_first(cluster: Cluster) -> None:
    leader = await cluster.leader()
    await leader.stop()
    assert (await cluster.leader(0.5)) is not leader, "it was handed over before the stop ended"


async def test_s8_a_stop_does_not_turn_to_voters_in_doubt(cluster: Cluster) -> None:
    leader = await cluster.leader()
    group = leader.host.group(GROUP)
    assert group is not None
    for _, progress in group.raw._raft.tracker.peers:
        progress.doubtful = True  # as after a start whose tail was cut, until the leader's word
    await leader.stop()
    assert leader.host._steps._task is not None
    assert leader.host._steps._task.done()


async def test_a_stop_ends_everything_though_something_in_it_fails(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    leader = await cluster.leader()
    leader.engine.flushes.clear()
    leader.host.propose(GROUP, b"meets the disk that hangs")
    await until(leader.engine.hanging.is_set)
    waiting = leader.host.propose(GROUP, b"x")

    def broken(_: int) -> int:
        raise ValueError("a bug")

    monkeypatch.setattr(leader.host.driver, "hand_over", broken)
    stopping = asyncio.create_task(leader.host.stop())
    await until(lambda: leader.host._stopped)
    leader.engine.flushes.set()
    with pytest.raises(ValueError, match="a bug"):
        await stopping
    completion = await waiting.done
    assert completion.lost or completion.result is not None, (
        "who waits is told, whatever came of it"
    )
    assert leader.host._peers.transport.peers == []
    assert leader.host._steps._task is not None
    assert leader.host._steps._task.done()
    # The thread says that it ends, and ends.
    await until(lambda: not leader.host._steps._syncer._thread.is_alive())


async def test_a_start_leaves_turns_to_others_and_answers_no_ping_before_its_end(
    cluster: Cluster,
) -> None:
    await cluster.propose(*[b"%d" % each for each in range(2000)])
    await cluster.agreed(2000)
    node = cluster.followers()[0]
    await node.kill()
    pings: list[wire.Ping | None] = []

    async def ping_all_the_time() -> None:
        while True:
            pings.append(node.host._peers.pinged(1, wire.Ping(number=1)))
            await asyncio.sleep(0)

    await node.open()
    pinging = asyncio.create_task(ping_all_the_time())
    await node.host.start()
    assert len(pings) >= 2000 // 256, "the log is read in one go"
    assert not any(pings), "its peers would count on it already"
    await until(lambda: pings[-1])
    pinging.cancel()
    node.running = True
    cluster.introduce(node)
    await cluster.agreed(2000)


async def test_a_start_can_be_broken_off(cluster: Cluster) -> None:
    await cluster.propose(*[b"%d" % each for each in range(2000)])
    await cluster.agreed(2000)
    node = cluster.followers()[0]
    await node.kill()
    await node.open()
    starting = asyncio.create_task(node.host.start())
    await asyncio.sleep(0)
    assert not starting.done()
    starting.cancel()
    node.running = True
    async with asyncio.timeout(5):
        await node.stop()
    await cluster.restart(node)
    await cluster.agreed(2000)


async def test_a_stopped_host_leaves_nothing_and_refuses_everything(tmp_path: Path) -> None:
    tasks = asyncio.all_tasks()
    cluster = Cluster(tmp_path)
    await cluster.start()
    await cluster.propose(b"x")
    await cluster.stop()
    host = cluster.nodes[0].host
    with pytest.raises(HostStoppedError):
        host.propose(GROUP, b"y")
    with pytest.raises(HostStoppedError):
        await host.read_barrier(GROUP)
    await host.stop()
    await until(lambda: asyncio.all_tasks() <= tasks)


async def test_a_stop_leaves_the_commit_index_on_the_disk(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, count=1)
    await cluster.start()
    await cluster.propose(b"x")
    (node,) = cluster.nodes
    await node.host.stop()
    group = node.host.driver.groups[GROUP]
    value = node.store.get(keys.hard_state(GROUP))
    assert value is not None
    assert decode_hard_state(GROUP, value).state.commit == group.commit
    await cluster.stop()


async def test_a_caller_that_gives_up_changes_nothing(cluster: Cluster) -> None:
    leader = await cluster.leader()
    leader.host.propose(GROUP, b"given up").done.cancel()
    await cluster.propose(b"kept")
    await cluster.agreed(2)
    assert leader.journal.payloads == [b"given up", b"kept"]


async def test_a_transfer_moves_the_leadership(cluster: Cluster) -> None:
    leader, target = await cluster.leader(), cluster.followers()[0]
    leader.host.transfer_leader(GROUP, replica_id(target.node_id, 1))
    await until(lambda: target.leads)
    await cluster.propose(b"x")


async def test_s12_everybody_hears_whose_disk_is_nearly_full(cluster: Cluster) -> None:
    full, *others = cluster.nodes
    assert not any(node.host.somebody_lacks_room for node in cluster.nodes)
    space = full.store._space
    for low_bytes, has_room in ((1 << 62, False), (0, True)):
        space._low_bytes = low_bytes
        for node in cluster.nodes:
            await until(lambda: node.host.has_room(full.node_id) is has_room)  # noqa: B023
            assert node.host.somebody_lacks_room is not has_room
            assert all(node.host.has_room(other.node_id) for other in others)


async def test_applied_entries_and_roles_are_told(cluster: Cluster) -> None:
    leader, follower = await cluster.leader(), cluster.followers()[0]
    applied: list[int] = []
    roles: list[Role] = []
    end = follower.host.on_applied(GROUP, lambda: applied.append(len(follower.journal.payloads)))
    end_roles = follower.host.on_role(lambda change: roles.append(change.role))
    await cluster.propose(b"x")
    await until(lambda: applied[-1:] == [1])
    calls = len(applied)
    leader.host.transfer_leader(GROUP, replica_id(follower.node_id, 1))
    await until(lambda: Role.LEADER in roles)
    end()
    end_roles()
    await cluster.propose(b"y")
    await cluster.agreed(2)
    assert len(applied) <= calls + 1, "the new leader's empty entry may still be told"
    assert 2 not in applied


async def test_a_member_is_added_and_gets_the_log(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    voters = cluster.conf.voters
    cluster.conf = ConfState(voters=voters[:2])
    third = cluster.nodes.pop()
    await cluster.start()
    await cluster.propose(*[b"%d" % each for each in range(50)])
    await third.start()
    cluster.nodes.append(third)
    for node in cluster.nodes:
        cluster.introduce(node)
    third.host.create_group(cluster.meta(third), None)
    leader = await cluster.leader()
    change = ConfChange((ConfChangeSingle(ConfChangeType.ADD_VOTER, voters[2]),))
    completion = await leader.host.change_membership(GROUP, change)
    assert completion.result == ConfState(voters=voters)
    await cluster.agreed(50)
    await cluster.stop()


async def test_readers_of_one_moment_share_a_round(cluster: Cluster) -> None:
    leader = await cluster.leader()
    rounds: list[object] = []
    read_index = leader.host.driver.read_index

    def counted(group_id: int, token: object) -> None:
        rounds.append(token)
        read_index(group_id, token)

    leader.host._barriers._read_index = counted
    first = [asyncio.create_task(leader.host.read_barrier(GROUP)) for _ in range(100)]
    await until(lambda: len(rounds) == 1)
    # The round has begun: whoever comes now might have seen something newer.
    later = [asyncio.create_task(leader.host.read_barrier(GROUP)) for _ in range(100)]
    given_up = later.pop()
    await asyncio.sleep(0)
    given_up.cancel()
    await asyncio.gather(*first, *later)
    assert len(rounds) == 2


async def test_s20_a_barrier_on_any_replica_covers_what_was_acknowledged(cluster: Cluster) -> None:
    for number in range(20):
        await cluster.propose(b"%d" % number)
        for node in cluster.followers():
            await node.host.read_barrier(GROUP)
            assert len(node.journal.payloads) == number + 1


async def test_a_barrier_without_a_majority_is_lost_not_wrong(cluster: Cluster) -> None:
    leader = await cluster.leader()
    for node in cluster.followers():
        await node.kill()
    with pytest.raises(BarrierLostError):
        await leader.host.read_barrier(GROUP)
    with pytest.raises(UnknownGroupError):
        await leader.host.read_barrier(99)


async def test_s15_a_restarted_node_went_down_and_came_up(cluster: Cluster) -> None:
    watcher, node = cluster.nodes[0], cluster.nodes[1]
    seen: list[tuple[int, bool]] = []
    end = watcher.host.on_node(lambda node_id, up: seen.append((node_id, up)))
    epoch = node.host.identity.boot_epoch
    await node.kill()
    await cluster.restart(node)
    assert node.host.identity.boot_epoch > epoch
    await until(lambda: seen == [(2, False), (2, True)])
    end()
    assert watcher.host.round_trip_ms(2) is not None


async def test_s16_a_silent_cut_is_noticed_and_healed(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, config=FAST)
    await cluster.start()
    old = await cluster.leader()
    cables = await cabled(cluster, old)
    others = [each for each in cluster.nodes if each is not old]
    cut_at = time.monotonic()
    for each in cables:
        each.cut()
    await until(lambda: not any(each.host.node_is_up(old.node_id) for each in others), 3)
    assert time.monotonic() - cut_at >= 0.2, "nothing was reset, so it took a silence"
    await until(lambda: any(each.leads for each in others), 10)
    new = next(each for each in others if each.leads)
    done = await new.host.propose(GROUP, b"on the larger side").done
    assert not done.lost
    for each in cables:
        each.mend()
    await until(cluster.all_up, 10)
    await cluster.agreed(1)
    await cluster.stop()
    for each in cables:
        await each.close()


async def test_s3_a_wrong_clock_knows_itself(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path, config=FAST)
    cluster.nodes[2].clock_offset_ms = 60_000
    await cluster.start()
    await until(lambda: all(each.host.clock_skew_ms() is not None for each in cluster.nodes))
    await until(cluster.nodes[2].host.clock_is_wrong)
    skew = cluster.nodes[2].host.clock_skew_ms()
    assert skew is not None
    assert 59_000 < skew < 61_000
    assert not cluster.nodes[0].host.clock_is_wrong()
    assert not cluster.nodes[1].host.clock_is_wrong()
    await cluster.stop()


async def test_a_process_that_stood_still_elects_nobody(cluster: Cluster) -> None:
    leader = await cluster.leader()
    terms = {each.host.group(GROUP): each for each in cluster.nodes}
    before = [group.term for group in terms if group is not None]
    time.sleep(2.5)  # noqa: ASYNC251  # the pause of a whole process is what is tested
    await cluster.propose(b"x")
    assert [group.term for group in terms if group is not None] == before
    assert leader.leads
    assert leader.host.loop_lag_ms < 1000


def test_everything_runs_on_uvloop(tmp_path: Path) -> None:
    async def scenario() -> None:
        cluster = Cluster(tmp_path)
        await cluster.start()
        await cluster.propose(*[b"%d" % each for each in range(100)])
        await (await cluster.leader()).host.read_barrier(GROUP)
        await cluster.agreed(100)
        await cluster.stop()

    uvloop.run(scenario())
