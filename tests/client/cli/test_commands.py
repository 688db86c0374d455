"""The commands as scripts use them: forms, exit codes, streams (contract 20)."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from rakit.client.cli import main, serve

from .command import NOBODY, Rakit


def test_dev_obeys_its_flags_and_no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    # What is meant for `rakit serve` on the same machine: another cluster, and no fsync.
    monkeypatch.setenv("RAKIT_CONFIG", "/nowhere/rakit.toml")
    monkeypatch.setenv("RAKIT_SEEDS", NOBODY)
    monkeypatch.setenv("RAKIT_UNSAFE_NO_FSYNC", "1")
    with Rakit("").start("dev", "--port", "0") as process:
        assert process.stdout is not None
        ready, export = process.stdout.readline().decode(), process.stdout.readline().decode()
        assert ready.startswith("rakit dev: ready after")
        port = int(export.strip().removeprefix("export RAKIT_BOOTSTRAP=127.0.0.1:"))
        assert port, "a port that clients can connect to"
        out, _ = Rakit(f"127.0.0.1:{port}").ask("cluster", "status")
        assert "1 of 1 nodes up" in out
        process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=30) == (b"", b"")
    assert process.returncode == 0


def test_topics_are_created_shown_changed_and_deleted(rakit: Rakit) -> None:
    out, err = rakit.ask("topic", "create", "orders", "--partitions", "3")
    assert out == "created topic orders with 3 partitions and replication factor 1\n"
    assert err.startswith("rakit: warning: Topic 'orders' has 1 replica")
    _, err = rakit.ask("topic", "create", "orders", code=1)
    assert err.startswith("rakit: there is a topic 'orders' already (TOPIC_EXISTS); ")
    out, _ = rakit.ask("topic", "list", "-o", "json")
    assert [(each["name"], len(each["partitions"])) for each in json.loads(out)] == [("orders", 3)]
    rakit.ask("topic", "update", "orders", "--retention-ms", "60000")
    out, _ = rakit.ask("topic", "get", "orders")
    assert "retention_ms = 60000\n" in out
    rakit.ask("topic", "update", "orders", "--reset", "retention_ms")
    out, _ = rakit.ask("topic", "get", "orders", "-o", "yaml")
    assert "  retention_ms: null\n" in out
    assert rakit.ask("topic", "delete", "orders") == ("deleted topic orders\n", "")
    rakit.ask("topic", "create", "orders")
    out, _ = rakit.ask("topic", "delete", "orders", "-o", "json")
    assert json.loads(out) == {"topic": "orders", "deleted": True}
    _, err = rakit.ask("topic", "get", "orders", code=1)
    assert "(UNKNOWN_TOPIC); `rakit topic list` shows the topics" in err


def test_a_line_is_a_record_and_a_record_is_a_line(rakit: Rakit) -> None:
    rakit.ask("topic", "create", "lines")
    assert rakit.run("produce", "lines", feed=b"one\n\nthree") == ("", "")
    assert rakit.ask("consume", "lines") == ("one\n\nthree\n", "")
    assert rakit.ask("consume", "lines", "--from", "1", "-n", "1") == ("\n", "")
    assert rakit.ask("consume", "lines", "--from", "latest") == ("", "")
    assert rakit.ask("consume", "lines", "--from", "2001-01-01T00:00:00Z", "-n", "1")[0] == "one\n"


def test_records_as_data_for_programs(rakit: Rakit) -> None:
    rakit.ask("topic", "create", "data")
    out, _ = rakit.run("produce", "data", "-K", "=", "-o", "json", feed=b"a=1\n\xff\n")
    assert json.loads(out) == {"topic": "data", "acknowledged": 2}
    first, second = map(json.loads, rakit.ask("consume", "data", "-o", "json")[0].splitlines())
    assert (first["key"], first["value"], first["offset"]) == ("a", "1", 0)
    assert (second["key"], second["value"]) == (None, {"base64": "/w=="})
    out, _ = rakit.ask("consume", "data", "-o", "yaml", "-n", "1")
    assert out.startswith('- topic: "data"\n  partition: 0\n  offset: 0\n  key: "a"\n')


def test_keys_files_and_formats(rakit: Rakit, tmp_path: Path) -> None:
    rakit.ask("topic", "create", "keyed", "--partitions", "4")
    file = tmp_path / "lines"
    file.write_bytes(b"".join(b"k%d:%d\n" % (number % 9, number) for number in range(5_000)))
    rakit.run("produce", "keyed", "--file", str(file), "--key-separator", ":")
    out, _ = rakit.ask("consume", "keyed", "-f", "%k:%v\\n")
    assert sorted(out.splitlines()) == sorted(file.read_text().splitlines())
    for key in range(9):
        mine = [int(line.split(":")[1]) for line in out.splitlines() if line.startswith(f"k{key}:")]
        assert mine == sorted(mine)


def test_follow_shows_what_comes_and_ends_well_on_ctrl_c(rakit: Rakit) -> None:
    rakit.ask("topic", "create", "live")
    rakit.run("produce", "live", feed=b"before\n")
    with rakit.start("consume", "live", "--follow") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"before\n"
        rakit.run("produce", "live", feed=b"after\n")
        assert process.stdout.readline() == b"after\n"
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=20) == (b"", b"")
    assert process.returncode == 0


def test_a_line_that_is_typed_goes_out_at_once(rakit: Rakit) -> None:
    rakit.ask("topic", "create", "typed")
    with (
        rakit.start("produce", "typed") as producer,
        rakit.start("consume", "typed", "--follow", "-n", "1") as consumer,
    ):
        assert producer.stdin is not None
        producer.stdin.write(b"hello\n")
        producer.stdin.flush()
        assert consumer.communicate(timeout=20) == (b"hello\n", b"")
        assert producer.poll() is None
        producer.send_signal(signal.SIGINT)
        assert producer.communicate(timeout=20) == (b"", b"rakit: interrupted\n")
    assert producer.returncode == 1


def test_whoever_reads_may_stop_reading(rakit: Rakit) -> None:
    rakit.ask("topic", "create", "much")
    rakit.run("produce", "much", feed=b"x" * 99 + b"\n" + (b"y" * 999 + b"\n") * 3_000)
    with rakit.start("consume", "much") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"x" * 99 + b"\n"
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0


def test_an_offset_that_a_partition_does_not_have_is_an_error(rakit: Rakit) -> None:
    rakit.ask("topic", "create", "short")
    rakit.run("produce", "short", feed=b"0\n1\n")
    assert rakit.ask("consume", "short", "--from", "2") == ("", "")
    for flags in ([], ["--follow"]):
        out, err = rakit.ask("consume", "short", "--from", "99", *flags, code=1)
        assert out == ""
        assert err == (
            "rakit: offset 99 lies outside partition 0 of 'short', whose log begins at 0 and ends"
            " before 2 (OFFSET_OUT_OF_RANGE); `rakit topic get NAME` shows the offsets\n"
        )


def test_the_status_names_every_node(rakit: Rakit) -> None:
    out, _ = rakit.ask("cluster", "status")
    assert "1 of 1 nodes up" in out
    assert rakit.bootstrap in out
    status = json.loads(rakit.ask("cluster", "status", "-o", "json")[0])
    assert [node["name"] for node in status["nodes"]] == ["dev"]


def test_produce_to_no_topic_fails_before_it_reads(rakit: Rakit) -> None:
    _, err = rakit.run("produce", "nowhere", feed=b"lost\n", code=1)
    assert "no topic 'nowhere' (UNKNOWN_TOPIC)" in err


@pytest.mark.parametrize(
    "arguments",
    [["topic", "list"], ["cluster", "status"], ["consume", "t"], ["produce", "t", "--file", "x"]],
    ids=" ".join,
)
def test_without_a_cluster_one_line_says_what_to_do(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x").write_bytes(b"line\n")
    _, err = Rakit(NOBODY).ask(*arguments, code=1)
    assert err.startswith(f"rakit: no node answers at {NOBODY}")
    assert "`rakit dev` starts one; --bootstrap or RAKIT_BOOTSTRAP says where to look\n" in err
    assert err.count("\n") == 1
    _, err = Rakit(NOBODY).ask("topic", "delete", "t", code=1)
    assert "says where to look; it may have taken effect\n" in err


def test_help_names_every_command_and_flag_of_the_contract() -> None:
    runner = CliRunner()
    overview = runner.invoke(main.app, ["--help"]).output
    for command in ("serve", "dev", "demo", "topic", "produce", "consume", "cluster"):
        assert command in overview
    for arguments, flags in (
        (["topic", "create"], ["--partitions", "--replication-factor"]),
        (["produce"], ["--file", "--key-separator"]),
        (["consume"], ["--from", "-n", "--follow", "-f"]),
    ):
        shown = runner.invoke(main.app, [*arguments, "--help"]).output
        for flag in [*flags, "--bootstrap"]:
            assert flag in shown, (arguments, flag)


def test_help_does_not_load_grpc() -> None:
    code = (
        "import sys, rakit.client.cli.main; from typer.testing import CliRunner;"
        "CliRunner().invoke(rakit.client.cli.main.app, ['--help']);"
        "sys.exit('grpc' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_serve_is_the_node_with_its_own_flags_and_exit_codes() -> None:
    _, err = Rakit("").run("serve", "--bootstrap-expect", "1", code=2)
    assert "--data-dir" in err
    out, _ = Rakit("").run("serve", "--help")
    assert "--peer-listen" in out


def test_without_the_extra_commands_say_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(serve, "_NODE_PACKAGES", ("a_package_that_is_not_here",))
    for command in ("serve", "dev", "demo"):
        result = CliRunner().invoke(main.app, [command])
        assert result.exit_code == 1, command
        assert "pip install 'rakit[node]'" in result.stderr
    assert capsys.readouterr().out == ""
