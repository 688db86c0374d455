"""S24: what a partition says to the batches of idempotent producers."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rakit.api.v1 import error_pb2
from rakit.api.v1.log_service_pb2 import ProducerStamp
from rakit.node.errors import RakitError
from rakit.node.partition.producers import (
    REMEMBERED_COUNT_MAX,
    UNSEEN,
    Producer,
    Remembered,
    Ruling,
    Stamp,
    checked_stamp,
    judge,
    refusal,
)


def remembered(sequence: int, crc: int = 1) -> Remembered:
    return Remembered(sequence, sequence * 10, 2, 3, sequence + 100, 1_000, crc)


def producer(*sequences: int, epoch: int = 5) -> Producer:
    made = Producer(epoch=epoch)
    for sequence in sequences:
        made = made.with_batch(epoch, remembered(sequence))
    return made


def rule(
    known: Producer,
    sequence: int,
    crc: int = 1,
    *,
    epoch: int = 5,
    previous: int | None = None,
) -> Ruling:
    return judge(known, Stamp(9, epoch, sequence, previous), crc)


def test_s24_an_unseen_producer_may_begin_anywhere() -> None:
    assert rule(UNSEEN, 1) is Ruling.APPEND
    assert rule(UNSEEN, 700, epoch=0) is Ruling.APPEND
    assert rule(UNSEEN, 700, previous=0) is Ruling.APPEND


def test_s24_an_unseen_producer_with_a_past_is_unknown() -> None:
    assert rule(UNSEEN, 8, previous=7) is Ruling.UNKNOWN_PRODUCER
    fenced_only = UNSEEN.with_fence(5, 1)
    assert rule(fenced_only, 8, previous=7) is Ruling.UNKNOWN_PRODUCER
    assert rule(fenced_only, 8, previous=0) is Ruling.APPEND


def test_s24_the_same_sequence_and_content_is_a_duplicate() -> None:
    known = producer(3, 4, 9)
    for sequence in (3, 4, 9):
        assert rule(known, sequence) is Ruling.DUPLICATE
        # Whatever it says about the one before it.
        assert rule(known, sequence, previous=1) is Ruling.DUPLICATE


def test_s24_a_duplicate_is_one_also_for_a_fenced_instance() -> None:
    assert rule(producer(3, epoch=5), 3, epoch=4) is Ruling.DUPLICATE


def test_s24_the_same_sequence_with_other_content_is_reused() -> None:
    assert rule(producer(3, 4), 4, crc=2) is Ruling.REUSED


def test_s24_a_gap_between_remembered_ones_was_never_stored() -> None:
    assert rule(producer(3, 9), 5) is Ruling.OUT_OF_ORDER


def test_s24_below_the_remembered_range_nobody_knows() -> None:
    assert rule(producer(3, 9), 2) is Ruling.TOO_OLD
    assert rule(producer(3, 9), 2, epoch=4) is Ruling.TOO_OLD, "fenced would claim NOT_APPLIED"


def test_s24_the_previous_sequence_must_be_the_newest() -> None:
    known = producer(3, 4)
    assert rule(known, 5, previous=4) is Ruling.APPEND
    assert rule(known, 7, previous=4) is Ruling.APPEND
    assert rule(known, 5, previous=3) is Ruling.OUT_OF_ORDER
    assert rule(known, 9, previous=8) is Ruling.OUT_OF_ORDER
    assert rule(known, 9, previous=0) is Ruling.OUT_OF_ORDER


def test_s24_epochs_fence_and_never_reset_the_numbering() -> None:
    known = producer(3, 4, epoch=5)
    assert rule(known, 5, epoch=4) is Ruling.FENCED
    assert rule(known, 4, crc=2, epoch=4) is Ruling.FENCED
    assert rule(known, 1, epoch=6) is Ruling.TOO_OLD, "a new epoch does not start at 1 again"
    assert rule(known, 5, epoch=6) is Ruling.APPEND


def test_s24_sixty_four_batches_are_remembered() -> None:
    known = producer(*range(1, 66))
    assert len(known.batches) == REMEMBERED_COUNT_MAX == 64
    assert rule(known, 2) is Ruling.DUPLICATE
    assert rule(known, 1) is Ruling.TOO_OLD


def test_s21_a_fence_raises_the_epoch_and_keeps_the_batches() -> None:
    known = producer(3, epoch=5)
    fenced = known.with_fence(8, 2_000)
    assert (fenced.epoch, fenced.batches) == (8, known.batches)
    assert known.with_fence(4, 2_000) is known
    assert rule(fenced, 4, epoch=5) is Ruling.FENCED


def test_s24_of_a_producer_that_may_be_forgotten_nothing_is_said_for_sure() -> None:
    fenced = UNSEEN.with_fence(5, 1)
    for known in (UNSEEN, fenced):
        for previous in (0, 3):
            stamp = Stamp(9, 5, 4, previous)
            assert judge(known, stamp, 1, may_be_forgotten=True) is Ruling.UNKNOWN_PRODUCER
        stamp = Stamp(9, 5, 4, None)
        assert judge(known, stamp, 1, may_be_forgotten=True) is Ruling.APPEND
    stamp = Stamp(9, 4, 4, 0)
    ruling = judge(fenced, stamp, 1, may_be_forgotten=True)
    error = refusal(ruling, fenced, stamp)
    assert error.reason == error_pb2.ERROR_REASON_PRODUCER_FENCED
    assert error.may_be_applied, "it may have been stored before it was forgotten"
    assert error.metadata == {"current_epoch": "5"}


class NaiveProducer:
    """Remembers everything that was ever stored."""

    def __init__(self) -> None:
        self.stored: dict[int, int] = {}
        self.epoch = 0

    def rule(self, stamp: Stamp, crc: int) -> Ruling:
        sequences = sorted(self.stored)
        newest = sequences[-1] if sequences else 0
        visible = set(sequences[-64:])
        if stamp.sequence in visible and self.stored[stamp.sequence] == crc:
            return Ruling.DUPLICATE
        if sequences and stamp.sequence < min(visible):
            return Ruling.TOO_OLD
        if stamp.epoch < self.epoch:
            return Ruling.FENCED
        if stamp.sequence in visible:
            return Ruling.REUSED
        if stamp.sequence < newest:
            return Ruling.OUT_OF_ORDER
        if stamp.previous_sequence not in {None, newest}:
            return Ruling.OUT_OF_ORDER if sequences else Ruling.UNKNOWN_PRODUCER
        return Ruling.APPEND


steps = st.lists(
    st.tuples(
        st.integers(-80, 3),  # relative to the newest sequence
        st.integers(0, 2),  # content
        st.integers(-1, 1),  # epoch, relative
        st.none() | st.integers(-2, 0),  # previous, relative to the newest sequence
        st.booleans(),  # or the next sequence in order, so that the table fills
    ),
    max_size=200,
)


@settings(max_examples=60)
@given(steps)
def test_s24_the_table_agrees_with_one_that_forgets_nothing(
    attempts: list[tuple[int, int, int, int | None, bool]],
) -> None:
    naive, known = NaiveProducer(), UNSEEN
    for relative, crc, epoch_step, previous, plain in attempts:
        newest = known.last_sequence
        sequence = newest + 1 if plain else max(1, newest + relative)
        stated = None if plain or previous is None else max(0, newest + previous)
        stamp = Stamp(9, max(0, naive.epoch + (0 if plain else epoch_step)), sequence, stated)
        ruling = judge(known, stamp, crc)
        assert ruling is naive.rule(stamp, crc)
        if ruling in {Ruling.DUPLICATE, Ruling.REUSED}:
            assert sequence in naive.stored
        if ruling in {Ruling.OUT_OF_ORDER, Ruling.APPEND, Ruling.UNKNOWN_PRODUCER}:
            assert sequence not in naive.stored, "NOT_APPLIED must be true for ever"
        if ruling is Ruling.APPEND:
            known = known.with_batch(stamp.epoch, remembered(sequence, crc))
            naive.stored[sequence] = crc
            naive.epoch = stamp.epoch


@pytest.mark.parametrize(
    ("ruling", "reason", "unknown", "text", "metadata"),
    [
        (
            Ruling.TOO_OLD,
            error_pb2.ERROR_REASON_SEQUENCE_TOO_OLD,
            True,
            (
                "Sequence 6 of producer 9 is older than the 2 batches that the partition remembers,"
                " which begin at 3: it may have been stored long ago."
            ),
            {"expected_sequence": "4"},
        ),
        (
            Ruling.FENCED,
            error_pb2.ERROR_REASON_PRODUCER_FENCED,
            False,
            (
                "Epoch 2 of producer 9 was replaced by epoch 5: a newer instance of this producer"
                " has started. This one must stop."
            ),
            {"current_epoch": "5"},
        ),
        (
            Ruling.REUSED,
            error_pb2.ERROR_REASON_SEQUENCE_REUSED,
            False,
            (
                "Sequence 6 of producer 9 was stored before with other content. A new batch needs a"
                " new sequence; a retry must repeat the batch unchanged."
            ),
            {"expected_sequence": "4"},
        ),
        (
            Ruling.OUT_OF_ORDER,
            error_pb2.ERROR_REASON_OUT_OF_ORDER_SEQUENCE,
            False,
            (
                "Sequence 6 of producer 9 (after 5) does not follow 4, the last one that the"
                " partition stored. This batch was not stored."
            ),
            {"expected_sequence": "4"},
        ),
        (
            Ruling.UNKNOWN_PRODUCER,
            error_pb2.ERROR_REASON_UNKNOWN_PRODUCER,
            True,
            (
                "The partition remembers no batch of producer 9, but the request says that sequence"
                " 5 came before: the producer was forgotten after a long pause, or that batch never"
                " arrived."
            ),
            {"expected_sequence": "4"},
        ),
    ],
)
def test_refusals_say_what_happened_and_whether_it_may_be_stored(
    ruling: Ruling,
    reason: error_pb2.ErrorReason.ValueType,
    unknown: bool,
    text: str,
    metadata: dict[str, str],
) -> None:
    error = refusal(ruling, producer(3, 4), Stamp(9, 2, 6, 5))
    assert error.reason == reason
    assert error.may_be_applied is unknown
    assert error.message == text
    assert error.metadata == metadata


def test_what_cannot_be_checked_is_refused_with_a_way_out() -> None:
    error = refusal(Ruling.UNKNOWN_PRODUCER, UNSEEN, Stamp(9, 2, 6, 0))
    assert error.may_be_applied
    assert error.message == (
        "The partition remembers no batch of producer 9 and may have forgotten it, so it cannot"
        " tell whether sequence 6 was stored. A batch that was never sent before may be sent"
        " without previous_sequence."
    )


@pytest.mark.parametrize(
    ("stamp", "text"),
    [
        (ProducerStamp(producer_id=0, sequence=1), "producer.producer_id is 0;"),
        (ProducerStamp(producer_id=1, epoch=-1, sequence=1), "producer.epoch is -1;"),
        (ProducerStamp(producer_id=1), "producer.sequence is 0; it must be from 1 to"),
        (
            ProducerStamp(producer_id=1, sequence=4, previous_sequence=4),
            "producer.previous_sequence is 4; it must be from 0 to 3.",
        ),
        (ProducerStamp(producer_id=1, sequence=1 << 53), "producer.sequence is 9007199254740992;"),
    ],
)
def test_a_stamp_that_makes_no_sense_is_refused(stamp: ProducerStamp, text: str) -> None:
    with pytest.raises(RakitError) as caught:
        checked_stamp(stamp)
    assert caught.value.reason == error_pb2.ERROR_REASON_INVALID_REQUEST
    assert text in caught.value.message


def test_a_good_stamp_becomes_a_value() -> None:
    assert checked_stamp(ProducerStamp(producer_id=3, epoch=1, sequence=8)) == Stamp(3, 1, 8)
    given_zero = ProducerStamp(producer_id=3, epoch=1, sequence=8, previous_sequence=0)
    assert checked_stamp(given_zero) == Stamp(3, 1, 8, 0)
