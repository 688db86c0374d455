from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.node.services.served import Served, serve


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    """One node for a module; its tests take a topic and a group each."""
    async with serve(tmp_path_factory.mktemp("node")) as one:
        yield one
