"""`rakit consume --group` where its session is taken from it: it joins again and goes on."""

from __future__ import annotations

import asyncio

import pytest

from rakit.client.cli import consume_group
from rakit.client.cli.consume import VALUE_LINES, Wanted
from rakit.client.cli.output import Format

from .fake_cluster import RefusalError
from .fake_groups import FakeGroups, Line
from .group_member import P0

SOON_S = 20.0


async def joined(groups: FakeGroups) -> Line:
    line = await groups.line()
    assert not (await line.next("join")).join.resume_token
    line.joined()
    line.assigned({P0: 0})
    return line


async def consumed(groups: FakeGroups, line: Line, task: asyncio.Task[int]) -> Line:
    """Lets the command print one record of its next session and end; returns that session."""
    line.fail("MEMBER_FENCED", fence_reason="SESSION_EXPIRED")
    again = await joined(groups)
    again.records("t", 0, 0, [b"a", b"b"])
    commit = (await again.next("commit")).commit
    assert [each.offset for each in commit.offsets] == [1]
    again.committed(commit.tag)
    await again.next("leave")
    again.end()
    assert await task == 0
    return again


@pytest.mark.parametrize("lost", ["while it commits", "before it commits", "as its commit says"])
async def test_a_session_that_was_lost_is_joined_again_and_what_nobody_committed_comes_again(
    groups: FakeGroups, capfdbinary: pytest.CaptureFixture[bytes], lost: str
) -> None:
    wanted = Wanted(
        "earliest", 3, follow=False, template=VALUE_LINES, output=Format.TABLE, group="g"
    )
    async with asyncio.timeout(SOON_S):
        task = asyncio.create_task(consume_group.run(groups.address, "t", wanted))
        line = await joined(groups)
        line.records("t", 0, 0, [b"a", b"b"])
        if lost != "before it commits":
            commit = (await line.next("commit")).commit
            assert [each.offset for each in commit.offsets] == [2]
            if lost == "as its commit says":
                line.committed(commit.tag, {P0: RefusalError("PARTITION_NOT_OWNED")})
        await consumed(groups, line, task)
    out, err = capfdbinary.readouterr()
    assert out == b"a\nb\na\n"
    assert b"some records may come again" in err


def test_a_member_is_believed_to_own_nothing_only_after_a_while_of_it() -> None:
    settling = consume_group.Settling()
    for _ in range(2):
        looks = [settling.look(owns=False) for _ in range(consume_group.SETTLE_LOOKS + 1)]
        assert looks == [False] * consume_group.SETTLE_LOOKS + [True]
        assert settling.look(owns=True)
