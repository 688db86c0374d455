"""What became of one batch of a producer: the pure half of GetProducerState (S21).

The answer is read from the applied state, and from the leader's outlook for what is pending. It is
final when it cannot change any more:

- APPLIED and FORGOTTEN always are.
- NOT_SEEN is, when a fence was committed before it was looked up: a request of an older epoch that
  is still on its way will be refused. Without a fence it is final only for a sequence that lies
  among the remembered ones, which can never be stored any more.
- PENDING never is.

A producer that is not in the table was never seen, unless its id is not above the highest one that
was ever forgotten here: then the partition cannot know, and says FORGOTTEN.
"""

from __future__ import annotations

from dataclasses import dataclass

from rakit.api.v1 import log_service_pb2
from rakit.node.partition.pending import Outlook
from rakit.node.partition.producers import Remembered
from rakit.node.partition.state import LogState, Stored


@dataclass(frozen=True, slots=True)
class ProducerAnswer:
    """What a partition knows of a producer, and of one of its batches."""

    #: Unspecified when no sequence was asked for.
    state: log_service_pb2.BatchState.ValueType
    #: With APPLIED: where the batch went.
    stored: Stored | None
    #: 0: nothing is remembered.
    last_sequence: int
    epoch: int
    final: bool


def look_up(
    applied: LogState, outlook: Outlook, producer_id: int, sequence: int, *, fenced: bool
) -> ProducerAnswer:
    """Answers for the batch with this sequence; 0 asks for the producer only."""
    producer = applied.producer(producer_id)
    stored: Stored | None = None
    final = False
    state = log_service_pb2.BATCH_STATE_UNSPECIFIED
    if sequence:
        found = producer.find(sequence)
        ahead = outlook.ahead.producer(producer_id).find(sequence)
        oldest = producer.batches[0].sequence if producer.batches else 0
        unprovable = not oldest and producer_id <= applied.expired_producer_id_max
        if found is not None:
            state, stored, final = log_service_pb2.BATCH_STATE_APPLIED, _stored(found), True
        elif ahead is not None:
            state = log_service_pb2.BATCH_STATE_PENDING
        elif sequence < oldest or unprovable:
            state, final = log_service_pb2.BATCH_STATE_FORGOTTEN, True
        else:
            state = log_service_pb2.BATCH_STATE_NOT_SEEN
            final = fenced or sequence < producer.last_sequence
    return ProducerAnswer(state, stored, producer.last_sequence, producer.epoch, final)


def _stored(batch: Remembered) -> Stored:
    return Stored(
        batch.base_offset, batch.end_offset, batch.append_time_ms, batch.term, batch.index
    )
