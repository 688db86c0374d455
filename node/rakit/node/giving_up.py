"""A node whose store cannot be trusted as a whole asks whether it may begin anew (S9).

Nobody needs to be called for a store that is lost while all others are well. A node that ends for
one asks, when everything of it is down and its store is closed: the decision must not rest on what
this node holds. If the cluster can spare the store (`metadata.sparing`), the database goes, and the
next start joins with a new one, which is filled as after a lost disk. If not, the next start meets
the same damage, ends, and asks again.

Rules:

- It asks for a store that is lost, and no other: what failed for something around it, which may be
  mended, or has passed, keeps its store. So does a store in which a replica contradicts the others.
- The directory is held from the question to the act.
- An answer holds for a moment. One that took long to come, or to be heard, is worth nothing: a
  process that was stopped shows in one clock, a machine that was in the other.

Left out: a store that works but must not rewrite its tables. It is of use to its groups.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from operator import sub
from pathlib import Path
from time import monotonic, time
from typing import Final, TypeAlias

from rakit.multiraft.store import Identity, StoreError, discarding, in_time
from rakit.multiraft.store.discarding import Held
from rakit.node.metadata.greeter import Connect, Greeter, resolve
from rakit.peer.v1.metadata_service_pb2 import GiveUpRequest

_log = logging.getLogger(__name__)

#: The monotonic clock and the wall clock, in seconds.
Clocks: TypeAlias = tuple[float, float]


@dataclass(frozen=True, slots=True)
class AskingConfig:
    """How long a node that ends asks."""

    #: Groups that this node led need new leaders first.
    seconds: float = 10.0
    pause_seconds: float = 0.5
    #: From the question to the act; the nodes of the cluster ask the members of all their groups.
    answer_seconds: float = 45.0
    #: A disk that takes longer hangs.
    disk_seconds: float = 10.0

    def __post_init__(self) -> None:
        """Refuses what cannot work."""
        assert min(self.seconds, self.pause_seconds, self.answer_seconds) > 0, "answers take time"
        assert self.disk_seconds > 0, "a rename takes time"


_USUAL: Final = AskingConfig()


async def give_up_if_spared(
    data_dir: Path,
    seeds: tuple[str, ...],
    connect: Connect,
    stop: asyncio.Event,
    asking: AskingConfig = _USUAL,
) -> bool:
    """Gives up a store that is lost and closed, if the cluster can spare it; whether it did.

    Raises `TimeoutError` when the disk hangs. `stop` ends the asking.
    """
    try:
        held = await in_time(partial(discarding.hold, data_dir), asking.disk_seconds)
    except (StoreError, OSError) as error:
        if isinstance(error, TimeoutError):
            raise
        _log.warning("nobody is asked for a new store: %s", error)
        return False
    if held is None:
        _log.warning("nobody is asked for a new store: it is not known whose this one is")
        return False
    try:
        if not held.identity.node_id or not seeds:
            _log.warning("nobody is asked for a new store: there are no seeds, or no cluster yet")
            return False
        if held.is_disputed:
            _log.warning("nobody is asked for a new store: a replica here may be the right one")
            return False
        asked_s = await _until_spared(held.identity, seeds, connect, stop, asking)
        if asked_s is None:
            _log.warning("the store is not spared and stays; the next start meets it again")
            return False
        return await in_time(partial(_discard, held, asked_s, asking), asking.disk_seconds)
    finally:
        held.close()


async def _until_spared(
    identity: Identity,
    seeds: tuple[str, ...],
    connect: Connect,
    stop: asyncio.Event,
    asking: AskingConfig,
) -> Clocks | None:
    """When the question was asked that was answered with yes; None if none was."""
    request = GiveUpRequest(
        cluster_id=identity.cluster_id, node_id=identity.node_id, store_uuid=identity.store_uuid
    )
    async with _greeter(connect, asking) as greeter:
        asks = asyncio.create_task(_ask(greeter, seeds, request, asking))
        stops = asyncio.create_task(stop.wait())
        await asyncio.wait({asks, stops}, return_when=asyncio.FIRST_COMPLETED)
        for each in (asks, stops):
            each.cancel()
        await asyncio.gather(asks, stops, return_exceptions=True)
        return None if asks.cancelled() else asks.result()


async def _ask(
    greeter: Greeter, seeds: tuple[str, ...], request: GiveUpRequest, asking: AskingConfig
) -> Clocks | None:
    until_s = monotonic() + asking.seconds
    while True:
        asked_s = await _ask_around(greeter, seeds, request, asking)
        if asked_s is not None or monotonic() > until_s:
            return asked_s
        await asyncio.sleep(random.uniform(0.5, 1.0) * asking.pause_seconds)


async def _ask_around(
    greeter: Greeter, seeds: tuple[str, ...], request: GiveUpRequest, asking: AskingConfig
) -> Clocks | None:
    """Asks one seed after the other, until one has an answer of the leader's."""
    resolved = await resolve(seeds)
    for address in random.sample(resolved.addresses, len(resolved.addresses)):
        asked_s = _clocks()
        answer = await greeter.give_up(address, request, asking.answer_seconds)
        if answer is None:
            continue
        if answer.spared:
            return asked_s
        _log.info("%s does not spare the store: %s", address, answer.objection)
        if answer.decided:
            break
    return None


def _clocks() -> Clocks:
    return monotonic(), time()


def _discard(held: Held, asked_s: Clocks, asking: AskingConfig) -> bool:
    if max(map(sub, _clocks(), asked_s)) > asking.answer_seconds:
        _log.warning("the answer has become too old, so the store stays")
        return False
    try:
        held.discard()
    except OSError as error:
        _log.warning("the disk does not let go of the store: %s", error)
        return False
    return True


@asynccontextmanager
async def _greeter(connect: Connect, asking: AskingConfig) -> AsyncGenerator[Greeter]:
    greeter = Greeter(connect, round(1000 * asking.answer_seconds))
    try:
        yield greeter
    finally:
        await greeter.close()
