"""Long work does not keep others waiting."""

from __future__ import annotations

import asyncio

from rakit.node.partition.steps import Steps, at_once, in_turns


def work(done: list[str]) -> Steps[int]:
    for _ in range(3):
        done.append("step")
        yield
    return 7


async def test_others_run_between_two_steps() -> None:
    done: list[str] = []

    async def other() -> None:
        for _ in range(3):
            done.append("other")
            await asyncio.sleep(0)

    result, _ = await asyncio.gather(in_turns(work(done)), other())
    assert result == 7
    assert done == ["step", "other"] * 3


def test_work_is_done_at_once_where_nobody_waits() -> None:
    done: list[str] = []
    assert at_once(work(done)) == 7
    assert done == ["step"] * 3
