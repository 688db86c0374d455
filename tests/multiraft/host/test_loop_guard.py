"""The guard against blocking calls sees them, and only them."""

from __future__ import annotations

import ast
import asyncio
import time
from pathlib import Path

import pytest

from rakit.multiraft import keys
from rakit.multiraft.kv import WriteBatch
from rakit.multiraft.store.config import StoreConfig
from rakit.multiraft.store.files import write_durably
from rakit.multiraft.store.rocks import RocksStore
from tests.loop_guard import ALLOWED

ROOT = Path(__file__).resolve().parents[3]


async def test_a_durable_write_in_the_loop_is_found(
    nothing_blocks_the_loop: list[str], tmp_path: Path
) -> None:
    write_durably(tmp_path / "f", b"x")
    assert {"os.write", "os.fsync"} <= {each.split(" ")[0] for each in nothing_blocks_the_loop}
    assert all("files.py" in each for each in nothing_blocks_the_loop), "the way there is shown"
    nothing_blocks_the_loop.clear()


async def test_s13_a_flush_in_the_loop_is_found(
    nothing_blocks_the_loop: list[str], tmp_path: Path
) -> None:
    store = RocksStore.open(StoreConfig.small(tmp_path / "store"), "node-1")
    assert not nothing_blocks_the_loop, "opening is allowed"
    batch = WriteBatch()
    batch.put(keys.local(b"name"), b"value")
    store.write(batch)
    assert not nothing_blocks_the_loop, "a write touches no disk"
    store.flush_wal()
    assert [each.split(" ")[0] for each in nothing_blocks_the_loop] == ["os.writev"]
    nothing_blocks_the_loop.clear()
    store.close()


async def test_what_a_thread_or_the_test_itself_does_is_not_counted(tmp_path: Path) -> None:
    await asyncio.to_thread(write_durably, tmp_path / "f", b"x")
    time.sleep(0)  # noqa: ASYNC251 -- the point of the test
    assert (tmp_path / "f").read_bytes() == b"x"


OURS = [
    (file, function)
    for file, function in ALLOWED
    if file.startswith(("multiraft", "node", "client"))
]


@pytest.mark.parametrize(("file", "function"), OURS)
def test_every_exception_names_a_function_that_exists(file: str, function: str) -> None:
    modules = [
        path for piece in ("raft", "node", "client") for path in (ROOT / piece).rglob("*.py")
    ]
    source = next(path for path in modules if path.as_posix().endswith(f"/{file}")).read_text()
    names = {
        node.name
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert function in names
