"""A whole node in this process, its backends away: what is so while it serves."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from mcp_server import app
from mcp_server.settings import (
    CountersSettings,
    DatabaseSettings,
    PolicySettings,
    Settings,
    load_settings,
)
from tests.integration.nodes import McpNode
from tests.integration.servers import free_port

pytestmark = pytest.mark.anyio


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    nowhere = free_port()
    node = McpNode(
        tmp_path,
        policy=PolicySettings(socket=tmp_path / "absent.sock"),
        counters=CountersSettings(url=f"redis://127.0.0.1:{nowhere}"),
        database=DatabaseSettings(host="127.0.0.1", port=nowhere),
        prometheus_url=f"http://127.0.0.1:{nowhere}",
        alertmanager_url=f"http://127.0.0.1:{nowhere}",
    )
    return load_settings(node.config)


@pytest.fixture
def unfrozen() -> Iterator[None]:
    gc.unfreeze()
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("unfrozen")
async def test_what_lives_as_long_as_the_node_is_not_searched_for_garbage(
    settings: Settings,
) -> None:
    serving = asyncio.create_task(app.serve(settings))
    try:
        async with asyncio.timeout(20):
            while gc.get_freeze_count() == 0:
                assert not serving.done()
                await asyncio.sleep(0.05)
        frozen = gc.get_freeze_count()
    finally:
        if not serving.done():
            os.kill(os.getpid(), signal.SIGTERM)
        await serving

    assert frozen > 10_000
