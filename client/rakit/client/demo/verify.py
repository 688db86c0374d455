"""What became of the records: pure counting over what was sent and what was read back.

It trusts neither side: receipts say where a record must stand, the log says what stands there, and
the order in which records of one key were sent must be the order in which they are read.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rakit.client.cli.complaints import CommandError
from rakit.client.demo.flights import Flight
from rakit.client.model import Receipt


class NotDurableError(CommandError):
    """The cluster acknowledges what a power cut may take back."""


def durable(receipt: Receipt) -> Receipt:
    """Returns a receipt that proves an fsync; raises `NotDurableError` for any other."""
    if not receipt.fsynced:
        raise NotDurableError(
            f"{receipt.topic}/{receipt.partition} acknowledged without fsync: its nodes run with"
            " --unsafe-no-fsync, so nothing that is counted here would mean anything"
        )
    return receipt


@dataclass(frozen=True, slots=True)
class Read:
    """One record as it was read back."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes


@dataclass(frozen=True, slots=True)
class Verdict:
    """The counts; all but the first two must be 0."""

    sent: int
    read: int
    # Acknowledged and not in the log.
    lost: int
    # Copies beyond the first.
    doubled: int
    # Records of a key that stand behind a later one of the same key.
    out_of_order: int
    # In the log under another key, at another place than its receipt says, or never sent.
    wrong: int
    # Offsets of a partition that are missing between its first and its last record.
    gaps: int

    @property
    def kept(self) -> bool:
        """Every promise held."""
        return not (self.lost or self.doubled or self.out_of_order or self.wrong or self.gaps)


def judge(
    sent: Sequence[Flight], receipts: Sequence[tuple[int, int]], read: Iterable[Read]
) -> Verdict:
    """Compares. `receipts[i]` is (partition, offset) of `sent[i]`; `read` is as it was read."""
    number_of = {flight.value: number for number, flight in enumerate(sent)}
    assert len(number_of) == len(sent), "values are unique, or doubles could not be told"
    copies = [0] * len(sent)
    latest: dict[bytes, int] = {}
    next_offset: dict[int, int] = {}
    count = doubled = out_of_order = wrong = gaps = 0
    for record in read:
        count += 1
        gaps += record.offset != next_offset.get(record.partition, 0)
        next_offset[record.partition] = record.offset + 1
        number = number_of.get(record.value)
        if number is None:
            wrong += 1
            continue
        copies[number] += 1
        if copies[number] > 1:
            doubled += 1
            continue
        place = (record.partition, record.offset)
        wrong += record.key != sent[number].key or place != receipts[number]
        if record.key is not None:
            out_of_order += number < latest.get(record.key, -1)
            latest[record.key] = max(number, latest.get(record.key, -1))
    return Verdict(len(sent), count, copies.count(0), doubled, out_of_order, wrong, gaps)
