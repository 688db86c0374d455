"""`make lint` refuses a change of the contract that would break a program that was compiled before.

The base is protos/released.binpb: the contract as it was when that file was made, since there is no
release yet. A release makes it anew (docs/HACKING.md); until then consumer groups are not in it.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BUF = Path(sys.executable).parent / "buf"


def check(protos: Path) -> str:
    """What the check of `make lint` says about a folder of protos."""
    (arguments,) = re.findall(r"buf (breaking .*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    done = subprocess.run(
        [BUF, *shlex.split(arguments)], cwd=protos, capture_output=True, text=True, check=False
    )
    assert (done.returncode == 0) == (not done.stdout), done.stderr
    return done.stdout


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The protos, to be spoiled."""
    shutil.copytree(ROOT / "protos", tmp_path / "protos", ignore=shutil.ignore_patterns("*.py*"))
    return tmp_path / "protos"


def edit(protos: Path, name: str, old: str, new: str) -> None:
    path = protos / "rakit/api/v1" / name
    text = path.read_text()
    assert text.count(old) == 1, f"{name} has changed: adapt this test"
    path.write_text(text.replace(old, new))


def test_the_contract_as_it_is_breaks_nothing(copy: Path) -> None:
    assert not check(copy)


def test_a_field_may_be_added(copy: Path) -> None:
    edit(
        copy, "header.proto", "string cluster_id = 1;", "string cluster_id = 1;\n  bool more = 99;"
    )
    assert not check(copy)


@pytest.mark.parametrize(
    ("name", "old", "new", "said"),
    [
        ("header.proto", "string cluster_id = 1;", "", 'field "1" with name "cluster_id"'),
        ("header.proto", "string cluster_id = 1;", "bytes cluster_id = 1;", "changed type"),
        ("header.proto", "string cluster_id = 1;", "string cluster = 1;", "changed name"),
        ("record.proto", "CODEC_GZIP = 3;", "", 'value "3" on enum "Codec"'),
        (
            "topic_service.proto",
            "rpc GetTopic(GetTopicRequest) returns (GetTopicResponse);",
            "",
            "GetTopic",
        ),
        ("header.proto", "option java_multiple_files = true;\n", "", "java_multiple_files"),
    ],
)
def test_what_would_break_a_compiled_program_is_refused(
    copy: Path, name: str, old: str, new: str, said: str
) -> None:
    edit(copy, name, old, new)
    assert said in check(copy)
