"""Where partitions are read from: seeks of the program, and those that go back to where we are.

The server begins a new stream at the commits, and stays where it is when a seek fails. In both
cases it is taken to where we are by a seek that the program does not know of.

Rules:

- Each seek has a tag, and its partition takes nothing until that is answered.
- One seek of a partition is under way. A newer one of the program takes its place, and answers both
  callers.
- A seek of the program that fails leaves the partition where it was.
- Going back is tried until it works. Where our offset is not kept any more, the server's place is
  taken, and if that is not kept either, the end of the log that the member begins at.
- Nothing is sent about a partition that the server has not spoken of on this stream.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from rakit.api.v1.group_service_pb2 import SeekPartition, Sought, SubscribeRequest
from rakit.api.v1.log_service_pb2 import Edge, Position
from rakit.client.consuming.places import Place, Seek, Told
from rakit.client.errors import OffsetOutOfRangeError, RakitError, from_status


class Seeks:
    """The seeks of one member that are under way."""

    def __init__(
        self, start: Edge.ValueType, pause_s: float, send: Callable[[SubscribeRequest], None]
    ) -> None:
        self._start: Edge.ValueType = start
        self._pause_s = pause_s
        self._send = send
        self._places: dict[int, Place] = {}
        self._callers: dict[int, list[asyncio.Future[int]]] = {}
        self._last_tag = 0

    def ask(self, place: Place, position: Position) -> asyncio.Future[int]:
        """The program reads a partition from another place; the future is the offset."""
        callers = [] if place.seeking is None else self._callers.pop(place.seeking.tag, [])
        seek = self._begin(place, position, is_asked=True)
        done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._callers[seek.tag] = [*callers, done]
        return done

    def go_back(self, place: Place) -> None:
        """Takes the server to where we are."""
        offset = place.next_offset
        position = Position(topic=place.name.topic, partition=place.name.partition, offset=offset)
        self._begin(place, position, is_asked=False)

    def _begin(self, place: Place, position: Position, *, is_asked: bool) -> Seek:
        seek = self._put(place, position, is_asked=is_asked)
        self.tell(place)
        return seek

    def _put(self, place: Place, position: Position, *, is_asked: bool) -> Seek:
        if place.seeking is not None:
            self._places.pop(place.seeking.tag, None)
        self._last_tag += 1
        place.seeking = seek = Seek(self._last_tag, position, is_asked)
        self._places[seek.tag] = place
        return seek

    def tell(self, place: Place) -> None:
        """Sends the partition's seek; again, where the stream is a new one."""
        if place.seeking is not None and place.told is Told.OWNED:
            seek = SeekPartition(tag=place.seeking.tag, position=place.seeking.position)
            self._send(SubscribeRequest(seek=seek))

    def answered(self, sought: Sought) -> None:
        """Takes in an answer; one to a seek that another has replaced is of no interest."""
        place = self._places.pop(sought.tag, None)
        if place is None or place.seeking is None:
            return
        seek, place.seeking = place.seeking, None
        assert seek.tag == sought.tag, "a partition is known by the tag of its only seek"
        if sought.HasField("error"):
            self._failed(place, seek, from_status(sought.error))
        elif seek.is_asked:
            place.move(sought.offset)
            self._answer(seek.tag, sought.offset)
        else:
            place.skip(sought.offset)

    def _failed(self, place: Place, seek: Seek, error: RakitError) -> None:
        if seek.is_asked:
            place.rewind()
            self.go_back(place)
            self._answer(seek.tag, error)
        elif isinstance(error, OffsetOutOfRangeError):
            self._begin(place, self._instead(place, seek.position), is_asked=False)
        else:
            # Till then the partition takes nothing.
            again = self._put(place, seek.position, is_asked=False)
            asyncio.get_running_loop().call_later(self._pause_s, self._retry, place, again)

    def _instead(self, place: Place, position: Position) -> Position:
        instead = Position(topic=position.topic, partition=position.partition)
        if position.HasField("offset") and position.offset < place.began:
            instead.offset = place.began
        else:
            instead.edge = self._start
        return instead

    def _retry(self, place: Place, seek: Seek) -> None:
        if place.seeking is seek:
            self.tell(place)

    def stop(self, place: Place, error: RakitError) -> None:
        """The partition goes, and its seek with it."""
        if place.seeking is not None:
            tag, place.seeking = place.seeking.tag, None
            self._places.pop(tag, None)
            self._answer(tag, error)

    def end(self, error: RakitError) -> None:
        """The membership is over: nothing is answered any more."""
        for place in list(self._places.values()):
            self.stop(place, error)

    def _answer(self, tag: int, outcome: int | RakitError) -> None:
        for done in self._callers.pop(tag, ()):
            if done.done():
                # Whoever asked has given up.
                continue
            if isinstance(outcome, RakitError):
                done.set_exception(outcome.again())
            else:
                done.set_result(outcome)
