"""What processes take, read from /proc: its formats by hand, and a real process."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.bench import processes
from tests.bench.processes import TICKS_PER_S, Watch, field_of, pss_bytes, stat_of, taken, tree_of

# Works until it is told to end: 20 MiB of its own, 8 MiB written, some CPU time.
PROGRAM = """
import os, sys
held = os.urandom(20 << 20)
with open(sys.argv[1], "wb") as file:
    file.write(held[: 8 << 20])
    os.fsync(file.fileno())
while sum(os.times()[:2]) < 0.3:
    sum(range(10000))
print("done", flush=True)
sys.stdin.read()
"""


def test_a_stat_is_read_whatever_the_name_of_the_process_is() -> None:
    fields = "S 41 77 77 0 -1 4194304 100 0 0 0 250 50 9 9 20 0 1 0 1 1 1"
    assert stat_of(f"77 (beam) S 1 (x) {fields}") == (41, 300 / TICKS_PER_S)
    assert stat_of(f"77 (sh) {fields}") == (41, 300 / TICKS_PER_S)


def test_a_field_is_found_by_its_whole_name() -> None:
    text = "55d-7ff [rollup]\nRss:  900 kB\nPss_Dirty:  3 kB\nPss:   700 kB\n"
    assert field_of(text, "Pss") == 700
    assert (
        field_of("rchar: 1\nwrite_bytes: 4096\ncancelled_write_bytes: 7\n", "write_bytes") == 4096
    )
    with pytest.raises(ValueError, match="no Pss in"):
        field_of("Rss: 1 kB\n", "Pss")


def test_a_system_is_its_roots_and_all_that_descend_from_them() -> None:
    parents = {1: 0, 10: 1, 11: 10, 12: 11, 20: 1, 21: 20}
    assert tree_of([10], parents) == {10, 11, 12}
    assert tree_of([10, 12, 21], parents) == {10, 11, 12, 21}
    # A root that has ended is nobody.
    assert tree_of([99], parents) == set()


def test_the_cpu_memory_and_bytes_of_a_child_of_a_root_count(tmp_path: Path) -> None:
    shell = ("/bin/sh", "-c", '"$0" -c "$1" "$2"; true', sys.executable, PROGRAM)
    with subprocess.Popen(
        [*shell, str(tmp_path / "file")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        before = taken([process.pid])
        assert process.stdout.readline() == b"done\n"
        after, memory_bytes = taken([process.pid]), pss_bytes([process.pid])
        process.communicate(b"")
    assert 0.2 <= after.cpu_s <= 5
    assert after.cpu_s > before.cpu_s
    assert after.written_bytes >= 8 << 20
    assert 20 << 20 < memory_bytes < 100 << 20


def test_a_watch_tells_what_was_taken_while_it_watched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "SAMPLE_S", 0.01)
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "file")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        with Watch([process.pid]) as watch:
            process.stdout.readline()
            began_s = time.thread_time()
            while time.thread_time() - began_s < 0.1:
                pass
        process.communicate(b"")
    figures = watch.figures()
    assert figures["seconds"] > 0.1
    assert 0.2 <= figures["node_cpu_s"] <= 5
    assert figures["client_cpu_s"] >= 0.09
    assert figures["memory_mib"] > 20
    assert figures["written_mb"] >= 8
