"""What became of one batch of a producer: the pure half of GetProducerState (S21).

The answer is read from the applied state, and from the leader's outlook for what is pending. It is
final when it cannot change any more:

- APPLIED always is. PENDING never is.
- NOT_SEEN, and FORGOTTEN of a producer of whom nothing is remembered, are when the epoch in force
  is above the one that the batch was sent with: a request that is still on its way will be refused.
  A fence at the batch's own epoch settles nothing.
- For a sequence at or below the newest one that is remembered they always are: it can never be
  stored any more.

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
    applied: LogState,
    outlook: Outlook,
    producer_id: int,
    sequence: int,
    *,
    sent_epoch: int | None,
) -> ProducerAnswer:
    """Answers for the batch with this sequence; 0 asks for the producer only.

    `sent_epoch` is the highest epoch that the batch can have been sent with, where that is known.
    """
    producer = applied.producer(producer_id)
    stored: Stored | None = None
    final = False
    state = log_service_pb2.BATCH_STATE_UNSPECIFIED
    if sequence:
        found = producer.find(sequence)
        ahead = outlook.ahead.producer(producer_id).find(sequence)
        oldest = producer.batches[0].sequence if producer.batches else 0
        is_kept_out = sent_epoch is not None and sent_epoch < producer.epoch
        final = is_kept_out or sequence < producer.last_sequence
        if found is not None:
            state, stored, final = log_service_pb2.BATCH_STATE_APPLIED, _stored(found), True
        elif ahead is not None:
            state, final = log_service_pb2.BATCH_STATE_PENDING, False
        elif sequence < oldest or applied.may_have_forgotten(producer_id):
            state = log_service_pb2.BATCH_STATE_FORGOTTEN
        else:
            state = log_service_pb2.BATCH_STATE_NOT_SEEN
    return ProducerAnswer(state, stored, producer.last_sequence, producer.epoch, final)


def _stored(batch: Remembered) -> Stored:
    return Stored(
        batch.base_offset, batch.end_offset, batch.append_time_ms, batch.term, batch.index
    )
