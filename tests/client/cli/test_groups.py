"""`rakit group`, `rakit consume --group` and `rakit partition`, as scripts use them."""

from __future__ import annotations

import json
import signal
from typing import Any

import pytest

from .command import Rakit


def group_of(rakit: Rakit, name: str) -> Any:
    out, _ = rakit.ask("group", "get", name, "-o", "json")
    return json.loads(out)


def test_a_group_goes_on_where_it_stopped(rakit: Rakit) -> None:
    rakit.ask("topic", "create", "steps")
    rakit.run("produce", "steps", feed=b"a\nb\nc\n")
    assert rakit.run("consume", "steps", "--group", "walkers", "-n", "2")[0] == "a\nb\n"
    found = group_of(rakit, "walkers")
    assert (found["state"], found["members"]) == ("EMPTY", [])
    (one,) = found["partitions"]
    assert (one["topic"], one["partition"], one["committed_offset"]) == ("steps", 0, 2)
    assert (one["latest"], one["lag_records"], one["member_id"]) == (3, 1, "")
    assert one["lag_ms"] > 0
    assert rakit.run("consume", "steps", "--group", "walkers")[0] == "c\n"
    assert rakit.run("consume", "steps", "--group", "walkers")[0] == ""
    assert group_of(rakit, "walkers")["partitions"][0]["lag_records"] == 0


def test_the_newest_is_where_a_new_group_may_begin(rakit: Rakit) -> None:
    rakit.ask("topic", "create", "late")
    rakit.run("produce", "late", feed=b"a\n")
    assert rakit.run("consume", "late", "--group", "latecomers", "--from", "latest")[0] == ""
    rakit.run("produce", "late", feed=b"b\n")
    # It has committed nothing, so it is asked again where to begin.
    out, _ = rakit.run("consume", "late", "--group", "latecomers", "--from", "earliest")
    assert out == "a\nb\n"


def test_a_follower_in_a_group_commits_when_it_is_stopped(rakit: Rakit) -> None:
    rakit.ask("topic", "create", "live")
    rakit.run("produce", "live", feed=b"a\nb\n")
    with rakit.start("consume", "live", "--group", "watchers", "--follow") as process:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(2)] == [b"a\n", b"b\n"]
        out, _ = rakit.ask("group", "list", "-o", "json")
        (listed,) = [each for each in json.loads(out) if each["name"] == "watchers"]
        assert (listed["state"], listed["member_count"]) == ("STABLE", 1)
        found = group_of(rakit, "watchers")
        assert found["members"][0]["client_id"] == "rakit consume"
        assert found["members"][0]["owned"] == [["live", 0]]
        _, err = rakit.ask("group", "delete", "watchers", code=1)
        assert "(GROUP_ACTIVE); stop its members first" in err
        _, err = rakit.ask(
            *("group", "reset", "watchers", "--topic", "live", "--to", "earliest", "--execute"),
            code=1,
        )
        assert "(GROUP_ACTIVE)" in err
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
    assert process.returncode == 0
    assert group_of(rakit, "watchers")["partitions"][0]["committed_offset"] == 2


def test_offsets_are_moved_only_when_that_is_said(rakit: Rakit) -> None:
    rakit.ask("topic", "create", "moved", "--partitions", "2")
    rakit.run("produce", "moved", feed=b"a\nb\nc\n")
    rakit.run("consume", "moved", "--group", "movers")
    reset = ("group", "reset", "movers", "--topic", "moved")
    out, _ = rakit.ask(*reset, "--partition", "0", "--to", "earliest")
    assert out.endswith("nothing was changed; --execute does it\n")
    committed = {
        each["partition"]: each["committed_offset"]
        for each in group_of(rakit, "movers")["partitions"]
    }
    (partition,) = [at for at, offset in committed.items() if offset == 3]
    only = (*reset, "--partition", str(partition))
    out, _ = rakit.ask(*only, "--shift", "-2", "--execute", "-o", "json")
    assert json.loads(out) == {
        "executed": True,
        "changes": [{"topic": "moved", "partition": partition, "before": 3, "after": 1}],
    }
    assert rakit.run("consume", "moved", "--group", "movers")[0] == "b\nc\n"
    _, err = rakit.ask(*only, "--to", "77", "--execute", code=1)
    assert "(COMMIT_OUT_OF_RANGE)" in err
    assert rakit.ask("group", "delete", "movers") == ("deleted group movers\n", "")
    _, err = rakit.ask("group", "get", "movers", code=1)
    assert "(UNKNOWN_GROUP); `rakit group list` shows the groups" in err


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("consume", "x", "--group", "g", "--from", "7"), "--from is earliest or latest"),
        (("group", "reset", "g", "--topic", "x"), "either --to WHERE or --shift N"),
        (
            ("group", "reset", "g", "--topic", "x", "--to", "latest", "--shift", "1"),
            "either --to WHERE or --shift N",
        ),
        (("group", "reset", "g", "--topic", "x", "--to", "soon"), "--to 'soon' is none of"),
    ],
)
def test_misuse_is_told_before_anybody_is_asked(
    rakit: Rakit, arguments: tuple[str, ...], complaint: str
) -> None:
    _, err = rakit.ask(*arguments, code=2)
    assert complaint in err


def test_partitions_are_listed_with_their_offsets(rakit: Rakit) -> None:
    rakit.ask("topic", "create", "places", "--partitions", "2")
    rakit.run("produce", "places", feed=b"a\nb\n")
    out, _ = rakit.ask("partition", "list", "--topic", "places", "-o", "json")
    rows = json.loads(out)
    assert [(each["topic"], each["partition"], each["leader_node_id"]) for each in rows] == [
        ("places", 0, 1),
        ("places", 1, 1),
    ]
    assert sum(each["latest"] for each in rows) == 2
    assert [each["replica_node_ids"] for each in rows] == [[1], [1]]
    out, _ = rakit.ask("partition", "list", "--leaderless", "-o", "json")
    assert json.loads(out) == []
    out, _ = rakit.ask("partition", "list", "--topic", "places")
    assert out.startswith("TOPIC ")
    _, err = rakit.ask("partition", "list", "--topic", "nowhere", code=1)
    assert "(UNKNOWN_TOPIC)" in err
