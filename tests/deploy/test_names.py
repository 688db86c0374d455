"""A pod keeps its name and not its address: whoever knew the old one finds the new one soon."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.deploy.places import command, require_places

pytestmark = pytest.mark.cluster
#: gRPC by itself would look the name up again after 30 s.
LIMIT_S = 15


@pytest.mark.parametrize("of", ["peer", "client"])
def test_a_channel_follows_a_name_to_another_address(tmp_path: Path, of: str) -> None:
    require_places(tmp_path)
    hosts, writable = tmp_path / "hosts", tmp_path / "writable"
    hosts.touch()
    writable.mkdir()
    pid = os.getpid()
    addresses = [f"127.{32 + (pid >> 8) % 32}.{pid % 256}.{number}" for number in (1, 2)]
    argv = [*command(hosts, writable), sys.executable, "-m", "tests.deploy.moving"]
    # The file of hosts is mounted over another one, so it stays writable under that name.
    subprocess.run([*argv, "/etc/hosts", *addresses, of], timeout=LIMIT_S, check=True)
