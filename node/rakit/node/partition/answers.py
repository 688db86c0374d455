"""What producers are answered, and the errors that speak of leaderships and lost entries."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Final

from rakit.api.v1 import error_pb2
from rakit.api.v1.log_service_pb2 import ProduceResponse
from rakit.multiraft.effects import Completion
from rakit.multiraft.errors import NotLeadingError, OverloadedError, ProposalRefusedError
from rakit.multiraft.machine import node_of
from rakit.node.errors import RakitError
from rakit.node.partition.state import Stored

#: What a client is told to wait when too much is uncommitted: a few rounds of the disk.
_OVERLOAD_RETRY_MS: Final = 50


@dataclass(frozen=True, slots=True)
class Appended:
    """The answer to Produce."""

    stored: Stored
    #: How many replicas were known to have synced the batch.
    replicas: int
    fsynced: bool
    #: The batch had been stored before.
    duplicate: bool

    def fill(self, response: ProduceResponse) -> None:
        """Writes the answer into the response; header and partition are the caller's."""
        response.base_offset = self.stored.base_offset
        response.end_offset = self.stored.end_offset
        response.append_time_ms = self.stored.append_time_ms
        response.term = self.stored.term
        response.index = self.stored.index
        response.replicas = self.replicas
        response.fsynced = self.fsynced
        response.duplicate = self.duplicate


class DoomedAnswer(asyncio.Future[Appended]):
    """An answer that will be an error, NOT_APPLIED or worse; only which one is open.

    Whoever keeps an order stops it when he gets this, not when the error comes.
    """

    def __init__(self, doom: RakitError) -> None:
        super().__init__()
        #: What it will be, if that turns out to be certain.
        self.doom = doom


class GatheredAnswer(asyncio.Future[Appended]):
    """The answer to a batch that waits for others before it is judged and proposed."""

    #: It was judged, and as a rule proposed: nobody knows what becomes of it before its entry does.
    is_judged = False
    #: It was refused, for this.
    doom: RakitError | None = None


def completed(done: asyncio.Future[Completion]) -> Completion | None:
    """The completion of an entry that is applied; None when its fate is not known."""
    if done.cancelled() or done.exception() is not None:
        return None
    completion = done.result()
    return None if completion.lost else completion


def fetch_error(answer: asyncio.Future[Appended]) -> None:
    """A caller that has gone must not make the loop complain about an error nobody fetched."""
    if not answer.cancelled():
        answer.exception()


def outcome_unknown() -> RakitError:
    """Returns the error for a batch that was proposed and whose fate is not known."""
    return RakitError(
        error_pb2.ERROR_REASON_OUTCOME_UNKNOWN,
        "The partition's leader changed while the batch was being replicated: it may or may not"
        " have been stored. Repeat it with the same producer sequence, or ask GetProducerState.",
    )


def not_proposed() -> RakitError:
    """Returns the error for a batch whose time was up before its turn came."""
    return RakitError(
        error_pb2.ERROR_REASON_NO_QUORUM,
        "What came before this batch on its partition was not settled in time. Nothing of this"
        " request was stored.",
    )


def broken() -> RakitError:
    """Returns the error for a batch that a bug has kept from its answer; the node's log has it."""
    return RakitError(
        error_pb2.ERROR_REASON_INTERNAL,
        "This is a bug in the server; the node's log has the details.",
    )


def leadership_over() -> RakitError:
    """Returns the error of an appender whose outlook cannot be believed any more."""
    return RakitError(
        error_pb2.ERROR_REASON_NO_LEADER,
        "This leadership of the partition is over. Nothing of this request was stored.",
    )


def refusal_uncertain() -> RakitError:
    """Returns the error for a batch that was refused by a leader which may be none.

    NOT_APPLIED speaks of this attempt, and has the node try the next leader.
    """
    return RakitError(
        error_pb2.ERROR_REASON_NO_LEADER,
        "The partition's leader changed before the answer was certain. Nothing of this request"
        " was stored.",
    )


def refusal_too_late(doom: RakitError) -> RakitError:
    """Returns the error for a batch that was refused, for `doom`, and whose time is up.

    Where even that leaves open whether the batch was stored long ago, this does too.
    """
    late = "The batch was refused, and there was no time left to make certain of it."
    if doom.may_be_applied:
        text = f"{late} It may have been stored long ago."
        return RakitError(error_pb2.ERROR_REASON_NO_LEADER, text).as_unknown()
    text = f"{late} Nothing of this request was stored."
    return RakitError(error_pb2.ERROR_REASON_NO_LEADER, text)


def refused(error: ProposalRefusedError) -> RakitError:
    """Returns what a client is told when nothing was proposed."""
    if isinstance(error, OverloadedError):
        return RakitError(
            error_pb2.ERROR_REASON_THROTTLED,
            "Too many bytes of this partition wait for a majority of its replicas.",
            {"retry_delay_ms": str(_OVERLOAD_RETRY_MS)},
        )
    if isinstance(error, NotLeadingError):
        return not_leading(error.leader_replica, error.term)
    return RakitError(
        error_pb2.ERROR_REASON_NODE_UNAVAILABLE,
        "This node holds no working replica of the partition.",
    )


def not_leading(leader_replica: int, term: int) -> RakitError:
    """Returns the error of a replica that does not lead, with the leader as it knows it."""
    if leader_replica == 0:
        return RakitError(
            error_pb2.ERROR_REASON_NO_LEADER,
            "The partition has no leader at the moment; an election takes a second or two.",
            {"leader_term": str(term)},
        )
    node_id = node_of(leader_replica)
    return RakitError(
        error_pb2.ERROR_REASON_NOT_LEADER,
        f"The partition is led by node {node_id}.",
        {"leader_node_id": str(node_id), "leader_term": str(term)},
    )
