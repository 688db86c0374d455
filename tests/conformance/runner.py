"""Every scenario in every language against one real cluster of three nodes.

For each run: a topic of its own, seeds, the program, what the scenario does meanwhile, the
witness's look at what is stored, the judgement, and a whole cluster again. The programs run one
after the other, so that a node that one scenario kills is missed by no other.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import grpc.aio

from tests.cluster.harness import Cluster, cluster_of, until
from tests.conformance import judging, witness
from tests.conformance.programs import Command, Run, run
from tests.conformance.scenarios import Act, Scenario, fill

NODES = ("a", "b", "c")
#: Variables of these names are meant for a node of the user's, not for nodes that are thrown away.
PREFIX = "RAKIT_"
FEED_PERIOD_S = 0.05
#: How often the harness's limit may pass before a cluster counts as one that does not start.
START_PATIENCE = 5


@dataclass(frozen=True)
class Verdict:
    """What is said about one scenario in one language."""

    scenario: str
    language: str
    # "passed" or "failed".
    status: str
    seconds: float = 0.0
    complaints: Sequence[str] = ()


@dataclass
class Stage:
    """One scenario in one language, under way."""

    cluster: Cluster
    scenario: Scenario
    topic: str
    words: dict[str, Any] = field(default_factory=dict[str, Any])
    appended: list[str] = field(default_factory=list[str])
    killed: dict[str, int] = field(default_factory=dict[str, int])
    changed: list[str] = field(default_factory=list[str])
    pending: list[Act] = field(default_factory=list[Act])
    # How much progress there was at the last act.
    heard_from: int = 0
    is_deleted: bool = False
    pending_is_over: asyncio.Event = field(default_factory=asyncio.Event)

    async def prepare(self) -> None:
        """Makes the topic, seeds it, and fills in the words that depend on it."""
        scenario = self.scenario
        self.pending = list(scenario.act)
        self.words = {"topic": self.topic, "partitions": scenario.partitions}
        if not scenario.partitions:
            return
        await self.cluster.create(self.topic, scenario.partitions)
        for partition in range(scenario.partitions):
            leader = await self.cluster.leader(self.topic, partition)
            if partition == 0:
                follower = self.cluster.others(leader)[0]
                self.words |= {"leader": leader.address, "follower": follower.address}
        await self._seed()

    async def _seed(self) -> None:
        times = [0]
        for number, batch in enumerate(self.scenario.seed):
            last = number + 1 == len(self.scenario.seed)
            if last:
                await self._later_than(times[-1])
            times.append(await self.append(batch.get("partition", 0), batch["values"]))
        if self.scenario.seed:
            records = await witness.read(self.cluster, self.topic, 0)
            since = [each.value for each in records if each.append_time_ms >= times[-1]]
            self.words |= {"time": times[-1], "from_time": since}

    @staticmethod
    async def _later_than(time_ms: int) -> None:
        """Waits for the clock's next millisecond, which the last seed's time is to differ by."""

        async def is_later() -> bool:
            return time.time_ns() // 1_000_000 > time_ms

        await until("the clock goes on", is_later)

    async def append(self, partition: int, values: Sequence[str]) -> int:
        self.appended += values
        return await witness.append(self.cluster, self.topic, partition, values)

    @property
    def addresses(self) -> list[str]:
        """All nodes, the one that the scenario wants first at the front."""
        every = [node.address for node in self.cluster.nodes.values()]
        first = fill(self.scenario.first, self.words)
        return sorted(every, key=lambda address: address != first)

    async def on_progress(self, program: Run) -> None:
        """Does what is due; `act` hangs on the first program."""
        while self.pending and self.is_due(self.pending[0], program):
            self.heard_from = len(program.progress)
            await self._do(self.pending.pop(0), program)
            if not self.pending:
                self.pending_is_over.set()

    def is_due(self, act: Act, program: Run) -> bool:
        """Whether the program has got so far, or has said what the act waits for."""
        if not act.heard:
            return act.after <= len(program.progress)
        wanted = " ".join(fill(act.heard.split(), self.words))
        since = program.progress[self.heard_from :]
        news = [said for said in since if not said.endswith(tuple(self.killed))]
        return any(f"{said} ".startswith(f"{wanted} ") for said in news)

    async def _do(self, act: Act, program: Run) -> None:
        match act.do:
            case "append":
                await self.append(act.partition, act.values)
            case "kill":
                node = self.cluster.at(self.addresses[0])
                assert node is not None, "the addresses are the cluster's"
                node.kill()
                self.killed[node.address] = len(program.progress)
                self.changed.append(f"{self.topic} 0")  # which it led, where that matters
            case "transfer":
                address = await witness.move_leadership(self.cluster, self.topic, act.partition)
                self.words["moved"] = f"{self.topic} {act.partition} {address}"
                self.changed.append(self.words["moved"])
            case "create":
                name: str = fill(act.name, self.words)
                await self.cluster.create(name)
                self.changed.append(f"{name} 0")
            case "delete":
                await witness.delete(self.cluster, self.topic)
                self.is_deleted = True
                self.changed.append(f"{self.topic} deleted")
            case _:
                program.kill()

    async def play(self, command: Command) -> list[Run]:
        """Runs the scenario's programs at the same time."""
        orders = {
            "scenario": self.scenario.name,
            "addresses": self.addresses,
            "topic": self.topic,
            "steps": fill(self.scenario.steps, self.words),
        }

        async def nothing(_program: Run) -> None:
            return

        hooks = [self.on_progress, *[nothing] * (self.scenario.members - 1)]
        feeding = asyncio.create_task(self._feed())
        try:
            async with asyncio.TaskGroup() as group:
                programs = [
                    group.create_task(run(command, orders, self.scenario.limit_s, hook))
                    for hook in hooks
                ]
            return [program.result() for program in programs]
        finally:
            self.pending_is_over.set()
            await feeding

    async def _feed(self) -> None:
        """Appends to each partition in turn, until everything that was to be done is done.

        So that the first program gets something, however late it joins the others.
        """
        number = 0
        while self.scenario.feed and not self.pending_is_over.is_set():
            partition, number = number % self.scenario.partitions, number + 1
            await self.append(partition, [f"{partition}.fed-{number}"])
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.pending_is_over.wait(), FEED_PERIOD_S)

    async def judge(self, runs: Sequence[Run]) -> list[str]:
        """What is wrong with what the programs did."""
        found = [complaint for program in runs for complaint in program.complaints]
        if found:
            return found  # there is nothing to compare
        if self.pending:
            found.append(f"not so far that the runner could {self.pending[0].do}")
        partitions = range(self.scenario.partitions)
        left = () if self.is_deleted else partitions
        stored = {n: await witness.read(self.cluster, self.topic, n) for n in left}
        known = [f"{self.topic} {partition}" for partition in partitions]
        results = next(program.results for program in runs if not program.killed)
        progress = [program.progress for program in runs]
        seen = judging.Seen(
            results, progress, self.appended, stored, self.killed, known, self.changed
        )
        return found + judging.complaints(self.scenario, seen, self.words)

    async def heal(self) -> None:
        """Starts what was killed, and waits until the cluster is whole."""
        gone = [node.name for node in self.cluster.nodes.values() if node.process is None]
        if gone:
            self.cluster.start(*gone)
            await whole(self.cluster)


async def whole(cluster: Cluster) -> None:
    """Waits until every node is ready, on a machine that may be busy with other things."""
    for remaining in reversed(range(START_PATIENCE)):
        try:
            await cluster.ready()
        except AssertionError:
            if not remaining:
                raise
        else:
            return


def _single(errors: BaseExceptionGroup[BaseException]) -> Iterator[BaseException]:
    for error in errors.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _single(cast("BaseExceptionGroup[BaseException]", error))
        else:
            yield error


async def verdict(cluster: Cluster, scenario: Scenario, language: str, command: Command) -> Verdict:
    """Plays one scenario in one language."""
    began = time.monotonic()
    stage = Stage(cluster, scenario, f"{scenario.name}.{language}")
    try:
        await stage.prepare()
        found = await stage.judge(await stage.play(command))
    except* (AssertionError, grpc.aio.AioRpcError) as errors:
        # The other scenarios are played all the same.
        found = [f"the runner itself could not go on: {error}" for error in _single(errors)]
    finally:
        await stage.heal()
    status = "failed" if found else "passed"
    return Verdict(scenario.name, language, status, time.monotonic() - began, found)


async def verdicts(
    directory: Path, scenarios: Sequence[Scenario], commands: Mapping[str, Command]
) -> AsyncIterator[Verdict]:
    """Everything, on a cluster that lives as long as this takes."""
    for name in [name for name in os.environ if name.startswith(PREFIX)]:
        del os.environ[name]
    async with cluster_of(directory, *NODES) as cluster:
        cluster.start()
        await whole(cluster)
        for scenario in scenarios:
            for language, command in commands.items():
                yield await verdict(cluster, scenario, language, command)
