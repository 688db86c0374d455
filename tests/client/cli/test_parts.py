"""The small languages of the command line: positions, formats, lines, output."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from rakit.client.cli.complaints import CommandError, MisuseError
from rakit.client.cli.consume import parse_start, parse_template, render
from rakit.client.cli.output import Format, Tree, print_table, print_tree, to_yaml, tree_of
from rakit.client.cli.produce import Lines, parse_separator, split_key
from rakit.client.cli.running import explain
from rakit.client.errors import make_error
from rakit.client.model import Replica
from rakit.client.records import Record

RECORD = Record("t", 2, 41, b"k", b"v", (("a", b"1"), ("b", b"2")), 1_000, 2_000)


def test_where_to_read_from_is_an_edge_an_offset_or_a_time() -> None:
    noon = datetime(2026, 1, 31, 12, tzinfo=UTC)
    assert parse_start("earliest") == "earliest"
    assert parse_start("latest") == "latest"
    assert parse_start("47") == 47
    assert parse_start("2026-01-31T12:00:00Z") == noon
    assert parse_start("2026-01-31T13:00:00+01:00") == noon
    assert parse_start("@1769860800000") == noon
    local = parse_start("2026-01-31T12:00:00")
    assert isinstance(local, datetime)
    assert local.tzinfo is not None


@pytest.mark.parametrize(
    "text", ["", "first", "-1", "@noon", "@999999999999999999", "2026-13-01", "9" * 20]
)
def test_another_position_is_refused_with_the_forms_there_are(text: str) -> None:
    with pytest.raises(MisuseError, match="none of earliest, latest, an offset, a time"):
        parse_start(text)


@pytest.mark.parametrize(
    ("template", "shown"),
    [
        ("%v\\n", b"v\n"),
        ("%p/%o\\t%k=%v %t %h", b"2/41\tk=v 1000 a=1,b=2"),
        ("100%% \\\\", b"100% \\"),
        ("h\u00e4", "h\u00e4".encode()),
        ("", b""),
        # As the shell hands over bytes that are no text.
        ("\udcff%v", b"\xffv"),
    ],
)
def test_a_format_shows_what_it_names(template: str, shown: bytes) -> None:
    assert render(parse_template(template), RECORD) == shown


def test_nulls_are_shown_as_nothing() -> None:
    assert render(parse_template("%k:%v"), RECORD._replace(key=None, value=None)) == b":"


@pytest.mark.parametrize("template", ["%x", "%", "\\q", "\\"])
def test_an_unknown_mark_is_refused(template: str) -> None:
    with pytest.raises(MisuseError, match="means nothing; there are %k %v"):
        parse_template(template)


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_lines_are_the_same_however_they_arrive(size: int) -> None:
    data = b"one\n\nthree\r\nlast"
    lines = Lines()
    found = [line for at in range(0, len(data), size) for line in lines.feed(data[at : at + size])]
    assert [*found, *lines.end()] == [b"one", b"", b"three\r", b"last"]


def test_a_last_line_with_its_end_is_not_followed_by_an_empty_one() -> None:
    lines = Lines()
    assert lines.feed(b"one\n") == [b"one"]
    assert lines.end() == []


def test_a_line_without_an_end_is_refused_before_it_fills_the_memory() -> None:
    lines = Lines()
    piece = bytes(1 << 20)
    for _ in range(16):
        assert lines.feed(piece) == []
    assert [len(line) for line in lines.feed(b"\n")] == [16 << 20]
    with pytest.raises(CommandError, match="a line is longer than 16 MiB"):
        lines.feed(bytes((16 << 20) + 1))


def test_the_key_stands_before_the_first_separator() -> None:
    assert split_key(b"a:b:c", b":") == (b"a", b"b:c")
    assert split_key(b":b", b":") == (b"", b"b")
    assert split_key(b"plain", b":") == (None, b"plain")
    assert split_key(b"a:b", None) == (None, b"a:b")


def test_a_separator_may_be_any_bytes_but_not_none() -> None:
    assert parse_separator(None) is None
    assert parse_separator("\udcff") == b"\xff"
    with pytest.raises(MisuseError, match="--key-separator is empty"):
        parse_separator("")


def test_yaml_says_what_json_says() -> None:
    value: Tree = {
        "name": 'quo"te: \u00e4',
        "empty": [],
        "nothing": {},
        "none": None,
        "flag": True,
        "list": [{"a": 1, "b": [1, 2]}, "text"],
        "inner": {"x": 1.5},
    }
    assert to_yaml(value) == [
        'name: "quo\\"te: \\u00e4"',
        "empty: []",
        "nothing: {}",
        "none: null",
        "flag: true",
        "list:",
        "  - a: 1",
        "    b:",
        "      - 1",
        "      - 2",
        '  - "text"',
        "inner:",
        "  x: 1.5",
    ]


def test_values_of_the_sdk_are_printed_under_their_field_names(
    capsys: pytest.CaptureFixture[str],
) -> None:
    tree = tree_of(Replica(1, 17, is_voter=True))
    print_tree(tree, Format.JSON)
    assert json.loads(capsys.readouterr().out) == {"node_id": 1, "replica_id": 17, "is_voter": True}
    print_tree([tree], Format.YAML)
    assert capsys.readouterr().out == "- node_id: 1\n  replica_id: 17\n  is_voter: true\n"


def test_a_table_is_aligned_and_shows_gaps(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(("ID", "NAME", "UP"), [(1, "a", True), (12, "", False)])
    assert capsys.readouterr().out == "ID  NAME  UP\n 1  a     yes\n12  -     no\n"
    print_table(("ID", "NAME"), [])
    assert capsys.readouterr().out == "ID  NAME\n"


def test_an_error_says_what_to_do() -> None:
    text = explain(make_error("UNKNOWN_TOPIC", "there is no topic 'x'."), is_change=True)
    assert text == (
        "there is no topic 'x' (UNKNOWN_TOPIC); `rakit topic list` shows the topics,"
        " `rakit topic create NAME` makes one"
    )


def test_only_a_change_may_have_taken_effect_and_says_so_behind_the_advice() -> None:
    error = make_error("UNREACHABLE", "no node answers")
    assert explain(error, is_change=True).endswith("where to look; it may have taken effect")
    assert explain(error, is_change=False).endswith("where to look")
    assert explain(make_error("INTERNAL", "a bug"), is_change=True) == (
        "a bug (INTERNAL); it may have taken effect"
    )
    late = make_error("DELIVERY_TIMEOUT", "t/0 did not acknowledge", maybe_applied=True)
    assert "`rakit topic get NAME` the leaders; it may have" in explain(late, is_change=True)
