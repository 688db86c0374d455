"""Settings: file below environment below flags; every mistake is one clear sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from rakit.node.config import ConfigError, NodeConfig, load


def loaded(*argv: str, **environ: str) -> NodeConfig:
    return load(["--data-dir=/tmp/d", *argv], environ)


def file(tmp_path: Path, text: str) -> str:
    path = tmp_path / "rakit.toml"
    path.write_text(text)
    return f"--config={path}"


def test_a_flag_beats_the_environment_which_beats_the_file(tmp_path: Path) -> None:
    config = file(tmp_path, 'name = "file"\nrack = "file"\nbootstrap_expect = 3\n')
    result = loaded(config, "--name=flag", RAKIT_NAME="env", RAKIT_RACK="env")
    assert (result.name, result.rack, result.bootstrap_expect) == ("flag", "env", 3)


def test_the_file_may_be_named_by_the_environment(tmp_path: Path) -> None:
    path = file(tmp_path, "[tuning]\ntick_ms = 20\n").removeprefix("--config=")
    assert loaded(RAKIT_CONFIG=path).tuning.tick_ms == 20


def test_the_reserve_is_a_number_of_bytes_and_else_the_stores_own() -> None:
    assert loaded().disk_reserve_bytes is None
    assert loaded("--disk-reserve-bytes=0").disk_reserve_bytes == 0
    assert loaded(RAKIT_DISK_RESERVE_BYTES="1048576").disk_reserve_bytes == 1 << 20


def test_defaults_stay_on_this_machine() -> None:
    config = loaded()
    assert str(config.listen[0].address) == "127.0.0.1:7070"
    assert str(config.peer_listen) == "127.0.0.1:7071"
    assert (config.bootstrap_expect, config.seeds, config.insecure) == (0, (), False)
    assert config.http_listen is None


def test_probes_are_answered_where_they_are_asked_for() -> None:
    assert str(loaded(RAKIT_HTTP_LISTEN="127.0.0.1:7072").http_listen) == "127.0.0.1:7072"
    everywhere = loaded("--http-listen=[::]:7072", "--insecure")
    assert str(everywhere.http_listen) == "[::]:7072"


def test_listeners_have_names() -> None:
    config = loaded(
        "--listen=inside=127.0.0.1:1",
        "--listen=outside=127.0.0.2:2",
        "--advertise=outside=example.org:3",
    )
    assert [(each.name, each.address.port) for each in config.listen] == [
        ("inside", 1),
        ("outside", 2),
    ]
    assert config.advertise[0].name == "outside"


def test_lists_are_separated_by_commas() -> None:
    config = loaded(RAKIT_SEEDS="a:1, b:2,a:1,[::1]:3")
    assert config.seeds == ("a:1", "b:2", "[::1]:3")


def test_variables_of_kubernetes_are_let_pass() -> None:
    assert loaded(RAKIT_PORT_7070_TCP="tcp://10.0.0.1:7070").name


MISTAKES: dict[str, tuple[list[str], str]] = {
    "a public listener": (["--listen=0.0.0.0:1"], "accept plaintext with --insecure"),
    "a public peer listener": (["--peer-listen=10.0.0.1:1"], "TLS is not built yet"),
    "a public listener for probes": (["--http-listen=0.0.0.0:7072"], "plaintext with --insecure"),
    "a wildcard that is not told": (["--insecure", "--listen=0.0.0.0:1"], "needs --advertise"),
    "a peer wildcard": (["--insecure", "--peer-listen=[::]:1"], "needs --peer-advertise"),
    "no port": (["--listen=localhost"], "not host:port"),
    "a bad port": (["--listen=localhost:http"], "must be a whole number from 0 to 65535"),
    "a port out of range": (["--seeds=a:0"], "from 1 to 65535"),
    "an IPv6 host without brackets": (["--listen=::1:70"], "in brackets"),
    "a listener twice": (["--listen=127.0.0.1:1", "--listen=127.0.0.1:2"], "given twice"),
    "an empty part of a seed's name": (["--seeds=a..b:7071"], "'a..b' is neither a host name nor"),
    "a part that is too long": ([f"--seeds={'x' * 64}:7071"], "is neither a host name nor"),
    "two names in one": (["--peer-advertise=a b:1"], "'a b' is neither a host name nor"),
    "an unknown listener": (["--advertise=x=a:1"], "which --listen does not"),
    "a bad name": (["--name=a b"], "--name 'a b' must be"),
    "a bad count": (["--bootstrap-expect=many"], "must be a whole number from 0 to 15"),
    "a reserve below nothing": (["--disk-reserve-bytes=-1"], "from 0 to 1099511627776"),
    "a bad format": (["--log-format=xml"], "must be one of auto, json, console"),
    "a file that is not there": (["--config=/no/such"], "cannot read /no/such"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_one_sentence(case: str) -> None:
    argv, text = MISTAKES[case]
    with pytest.raises(ConfigError) as caught:
        loaded(*argv)
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


FILES = {
    "an unknown key": ("data_dri = 'x'", "unknown key 'data_dri'; the nearest valid one is"),
    "an unknown tuning key": ("[tuning]\ntick = 1", "nearest valid one is 'tick_ms'"),
    "no TOML": ("a = ", "is not valid TOML"),
    "a number that is text": ("[tuning]\ntick_ms = 'x'", "tuning.tick_ms must be a whole number"),
    "a switch that is none": ("insecure = 'maybe'", "must be true or false"),
    "text that is a number": ("name = 3", "must be text"),
    "a contradiction": (
        "[tuning]\nheartbeat_ticks = 9\nelection_ticks = 9",
        "tuning.heartbeat_ticks (9) must be less than tuning.election_ticks (9)",
    ),
}


@pytest.mark.parametrize("case", FILES)
def test_a_mistake_in_the_file_names_the_file_or_the_key(tmp_path: Path, case: str) -> None:
    content, text = FILES[case]
    with pytest.raises(ConfigError) as caught:
        loaded(file(tmp_path, content))
    assert text in str(caught.value)


def test_without_a_data_directory_nothing_starts() -> None:
    with pytest.raises(ConfigError, match="--data-dir is missing"):
        load([], {})


def test_a_flag_that_is_not_known_ends_with_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        loaded("--listn=x")
    assert caught.value.code == 2
    assert "--listn" in capsys.readouterr().err
