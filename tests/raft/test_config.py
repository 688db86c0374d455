from __future__ import annotations

import random
from typing import Any

import pytest

from rakit.raft import Config

RNG = random.Random(1)


def test_the_defaults_hold_together() -> None:
    config = Config(id=1, rng=RNG)
    assert config.heartbeat_tick < config.election_tick
    assert config.check_quorum
    assert config.pre_vote
    assert not config.doubtful


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"id": 0}, "id is 0"),
        ({"applied": -1}, "applied is -1"),
        ({"election_tick": 5, "heartbeat_tick": 5}, "election_tick 5 must be greater"),
        ({"heartbeat_tick": 0}, "heartbeat_tick is 0"),
        ({"max_inflight_messages": 0}, "max_inflight_messages is 0"),
        ({"max_inflight_bytes": 10}, "must hold at least one message"),
        ({"max_sent_bytes_per_ready": 0}, "max_sent_bytes_per_ready is 0"),
        ({"max_uncommitted_bytes": 0}, "max_uncommitted_bytes is 0"),
        ({"max_committed_bytes_per_ready": 0}, "max_committed_bytes_per_ready is 0"),
        ({"max_committed_entries_per_ready": 0}, "max_committed_entries_per_ready is 0"),
        ({"max_pending_reads": 0}, "max_pending_reads is 0"),
        ({"doubtful": True}, "a doubtful replica needs the number of its boot"),
        ({"boot": -1}, "boot is -1"),
    ],
)
def test_what_cannot_work_is_refused(options: dict[str, Any], message: str) -> None:
    values: dict[str, Any] = {"id": 1}
    values.update(options)
    with pytest.raises(ValueError, match=message):
        Config(rng=RNG, **values)
