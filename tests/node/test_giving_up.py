"""A node that ends for a lost store asks the cluster, and goes by what it is told (S9)."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc.aio
import pytest

from rakit.multiraft.store import RocksStore, discarding
from rakit.multiraft.store.discarding import Held
from rakit.node import giving_up
from rakit.node.giving_up import AskingConfig, give_up_if_spared
from rakit.node.health import late
from rakit.node.metadata.greeter import Greeter
from rakit.peer.v1 import metadata_service_pb2 as wire
from rakit.peer.v1 import metadata_service_pb2_grpc as grpc_pb
from tests.cluster.harness import free_port
from tests.multiraft.store.support import entries_in, open_store, write_some
from tests.node.metadata.machines import connect, until

SHORT = AskingConfig(seconds=0.3, pause_seconds=0.01, answer_seconds=5)


@dataclass
class Seed(grpc_pb.FormationServiceServicer):
    """A member that gives its answers one after the other, the last one for ever."""

    answers: list[wire.GiveUpResponse]
    asked: list[wire.GiveUpRequest] = field(default_factory=list[wire.GiveUpRequest])
    address: str = ""

    async def Greet(self, request: object, context: object) -> wire.GreetResponse:  # noqa: N802
        raise AssertionError(f"nobody greets {request} {context} here")

    async def Promise(self, request: object, context: object) -> wire.PromiseResponse:  # noqa: N802
        raise AssertionError(f"nobody asks {request} {context} here")

    async def Join(self, request: object, context: object) -> wire.JoinResponse:  # noqa: N802
        raise AssertionError(f"nobody joins {request} {context} here")

    async def GiveUp(  # noqa: N802 - the name is given by the proto
        self, request: wire.GiveUpRequest, context: grpc.ServicerContext
    ) -> wire.GiveUpResponse:
        del context
        self.asked.append(request)
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


@asynccontextmanager
async def served(*answers: wire.GiveUpResponse) -> AsyncGenerator[Seed]:
    seed = Seed(list(answers))
    server = grpc.aio.server()
    seed.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    grpc_pb.add_FormationServiceServicer_to_server(seed, late(server))
    await server.start()
    try:
        yield seed
    finally:
        await server.stop(None)


SPARED = wire.GiveUpResponse(spared=True)
NEEDED = wire.GiveUpResponse(objection="it is needed")


@pytest.fixture
def uuid(tmp_path: Path) -> str:
    """Of the closed store in that directory."""
    store = open_store(tmp_path)
    store.adopt("cluster", 3)
    write_some(store, 5)
    store.close()
    return store.store_uuid


async def give_up(directory: Path, seeds: tuple[str, ...], asking: AskingConfig = SHORT) -> bool:
    return await give_up_if_spared(directory, seeds, connect, asyncio.Event(), asking)


def kept(directory: Path, uuid: str) -> bool:
    store = open_store(directory)
    try:
        return store.store_uuid == uuid and len(entries_in(store)) == 5
    finally:
        store.close()


async def test_s9_a_store_that_is_spared_is_given_up(tmp_path: Path, uuid: str) -> None:
    async with served(NEEDED, NEEDED, SPARED) as seed:
        nobody = f"127.0.0.1:{free_port()}"
        assert await give_up(tmp_path, (nobody, seed.address))
    wanted = wire.GiveUpRequest(cluster_id="cluster", node_id=3, store_uuid=uuid)
    assert seed.asked == [wanted] * 3
    assert not await asyncio.to_thread(kept, tmp_path, uuid)


async def test_s9_a_store_that_is_needed_is_kept(tmp_path: Path, uuid: str) -> None:
    async with served(NEEDED) as seed:
        assert not await give_up(tmp_path, (seed.address,))
        assert len(seed.asked) > 1
    assert await asyncio.to_thread(kept, tmp_path, uuid)


@pytest.mark.parametrize("decided", [False, True])
async def test_what_the_leader_says_is_not_asked_of_others_in_the_same_breath(
    tmp_path: Path, uuid: str, *, decided: bool
) -> None:
    answer = wire.GiveUpResponse(objection="no", decided=decided)
    once = AskingConfig(seconds=1e-9, pause_seconds=0.01, answer_seconds=5)
    async with served(answer) as one, served(answer) as other:
        seeds = (one.address, other.address)
        assert not await give_up(tmp_path, seeds, once)
        assert len(one.asked) + len(other.asked) == (1 if decided else 2)
    assert await asyncio.to_thread(kept, tmp_path, uuid)


async def test_s9_where_nobody_answers_the_store_is_kept(tmp_path: Path, uuid: str) -> None:
    nobody = f"127.0.0.1:{free_port()}"
    assert not await give_up(tmp_path, (nobody,))
    assert not await give_up(tmp_path, ())
    assert await asyncio.to_thread(kept, tmp_path, uuid)


@pytest.mark.parametrize("clock", ["monotonic", "time"])
async def test_s9_an_answer_that_is_old_when_it_is_heard_is_not_acted_upon(
    tmp_path: Path, uuid: str, monkeypatch: pytest.MonkeyPatch, clock: str
) -> None:
    """The process or its machine was stopped between the answer and the act."""
    real = getattr(time, clock)
    answered = Greeter.give_up
    stopped_s = 0.0

    async def is_stopped_then(
        self: Greeter, address: str, request: wire.GiveUpRequest, seconds: float
    ) -> wire.GiveUpResponse | None:
        nonlocal stopped_s
        answer = await answered(self, address, request, seconds)
        stopped_s += 60
        return answer

    async with served(SPARED) as seed:
        monkeypatch.setattr(Greeter, "give_up", is_stopped_then)
        monkeypatch.setattr(giving_up, clock, lambda: real() + stopped_s)
        assert not await give_up(tmp_path, (seed.address,))
        assert seed.asked
    assert await asyncio.to_thread(kept, tmp_path, uuid)


@pytest.mark.parametrize("why", ["disputed", "in use", "unknown", "no cluster", "nothing"])
async def test_s9_nobody_is_asked_about_a_store_that_is_not_to_be_given_up(
    tmp_path: Path, uuid: str, why: str
) -> None:
    directory = tmp_path

    def prepare() -> RocksStore | None:
        nonlocal directory
        if why == "disputed":
            (tmp_path / "disputed").touch()
        elif why == "unknown":
            (tmp_path / "identity.json").write_text("{")
        elif why == "no cluster":
            directory = tmp_path / "alone"
            open_store(directory).close()
        elif why == "nothing":
            (tmp_path / "file").touch()
            directory = tmp_path / "file"
        return open_store(tmp_path) if why == "in use" else None

    user = await asyncio.to_thread(prepare)
    async with served(SPARED) as seed:
        assert not await give_up(directory, (seed.address,))
        assert seed.asked == []
    if user is not None:
        await asyncio.to_thread(user.close)
    assert (tmp_path / "db").exists()
    assert uuid


async def test_a_disk_that_does_not_let_go_of_its_store_keeps_it(
    tmp_path: Path, uuid: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_held: Held) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Held, "discard", refuse)
    async with served(SPARED) as seed:
        assert not await give_up(tmp_path, (seed.address,))
    assert await asyncio.to_thread(kept, tmp_path, uuid)


async def test_an_order_to_stop_ends_the_asking(tmp_path: Path, uuid: str) -> None:
    stop = asyncio.Event()
    long = AskingConfig(seconds=60, pause_seconds=30)
    async with served(NEEDED) as seed:
        asking = asyncio.create_task(
            give_up_if_spared(tmp_path, (seed.address,), connect, stop, long)
        )
        await until(lambda: seed.asked)
        stop.set()
        assert not await asyncio.wait_for(asking, 10)
    assert await asyncio.to_thread(kept, tmp_path, uuid)


@pytest.mark.parametrize("step", ["hold", "discard"])
async def test_s13_a_disk_that_hangs_is_not_waited_for(
    tmp_path: Path, uuid: str, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    go_on = threading.Event()

    def hang(_of: object) -> None:
        go_on.wait(20)

    monkeypatch.setattr(discarding if step == "hold" else Held, step, hang)
    short = AskingConfig(seconds=0.3, pause_seconds=0.01, answer_seconds=5, disk_seconds=0.1)
    async with served(SPARED) as seed:
        with pytest.raises(TimeoutError):
            await give_up(tmp_path, (seed.address,), short)
    go_on.set()
    monkeypatch.undo()
    assert await asyncio.to_thread(kept, tmp_path, uuid)
