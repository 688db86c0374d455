"""The data lanes as frames: who takes whose place, what may be announced, what ends with what."""

from __future__ import annotations

from rakit.multiraft.framed import FramedStream
from rakit.multiraft.lane_port import LanePort
from rakit.multiraft.link import Link
from rakit.multiraft.session import Session
from rakit.multiraft.transport import Transport
from tests.mutants import mutant, named_in

framed = named_in("multiraft/host/test_framed.py")
ports = named_in("multiraft/host/test_lane_port.py")
lanes = named_in("multiraft/host/test_lanes.py")

MUTANTS = [
    mutant(
        "a_message_is_held_while_the_next_is_waited_for",
        29,
        "contract 5",
        (Session._read_one, "        data = received(", "        self.data = data = received("),
        lanes("nothing_of_a_message_is_held_while_the_next_is_waited_for"),
    ),
    mutant(
        "a_message_that_never_is_whole_is_kept",
        29,
        "contract 5",
        (FramedStream.connection_lost, "        self._frames.drop()\n", ""),
        framed("on_either_loop"),
    ),
    mutant(
        "a_stream_that_has_ended_takes_a_living_ones_place",
        29,
        "decision 0018",
        (Transport._goes_over, " and not stream.ended", ""),
        lanes("a_stream_that_has_ended_takes_nobodys_place"),
    ),
    mutant(
        "a_late_call_to_go_over_is_not_judged_again",
        29,
        "safety S15",
        (Transport.accept_frames, "await self._refuse_if_misplaced(stream, hello)", "pass"),
        lanes("s15_a_call_to_go_over_that_comes_too_late_is_judged_again"),
    ),
    mutant(
        "a_stream_is_served_after_the_stop",
        29,
        "safety S12",
        (Transport._serve, "await self._refuse_if_stopped(stream)", "pass"),
        lanes("a_stream_that_was_greeted_before_the_stop_is_not_served_after_it"),
    ),
    mutant(
        "another_store_at_the_port_is_taken",
        29,
        "safety S11",
        (Link._greet, "check_is_same_start(answer, there)", "pass"),
        lanes("s11_another_store_at_the_port_is_neither_taken_nor_noted"),
    ),
    mutant(
        "a_stranger_may_announce_a_large_message",
        29,
        "contract 5",
        (
            Transport.accept_frames,
            "hello = await self._greeted(stream)",
            "stream.trust(); hello = await self._greeted(stream)",
        ),
        lanes("a_stranger_may_announce_nothing_large"),
    ),
    mutant(
        "a_peer_may_announce_a_large_message_before_it_goes_over",
        29,
        "contract 5",
        (Transport.accept_frames, "stream.trust(behind_next=True)", "stream.trust()"),
        lanes("a_peer_may_announce_much_once_it_has_gone_over"),
    ),
    mutant(
        "reading_stops_one_day",
        29,
        "decision 0018",
        (
            FramedStream.read,
            "self._received_bytes -= len(message) + MESSAGE_COST_BYTES",
            "self._received_bytes -= len(message)",
        ),
        framed("on_either_loop"),
    ),
    mutant(
        "a_port_that_is_shut_off_delays_the_lane_each_time",
        29,
        "decision 0018",
        (LanePort.open, "or self._was_of_no_use", ""),
        ports("a_port_that_was_of_no_use_delays_no_lane_again"),
    ),
    mutant(
        "a_port_is_blamed_for_a_restart",
        29,
        "safety S15",
        (
            LanePort.open,
            "if isinstance(error, OvertakenError) and not self._was_overtaken:",
            "if False:",
        ),
        lanes("a_peer_that_starts_anew_while_a_lane_goes_over_is_not_taken_for_the_old_one"),
    ),
    mutant(
        "a_younger_lane_ends_with_an_older_silence",
        29,
        "safety S16",
        (Link.hang_up, "if self._began_s < before_s:", "if True:"),
        ports("a_lane_that_began_later_is_not_hung_up_on"),
    ),
    mutant(
        "a_silence_before_the_hello_ends_no_lane",
        29,
        "safety S16",
        (Link._run, "if came_up_at is not None or was_silent:", "if came_up_at is not None:"),
        ports("s16_each_silence_ends_the_lanes_that_are_older_and_no_others"),
    ),
]
