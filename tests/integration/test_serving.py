"""A whole node, its backends away: what is so while it serves, and what it needs to begin."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from mcp_server import app
from mcp_server.identity import Subject, Verifier
from mcp_server.identity.possession import NOTHING, Presented
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
def config(tmp_path: Path) -> Path:
    nowhere = free_port()
    node = McpNode(
        tmp_path,
        policy=PolicySettings(socket=tmp_path / "absent.sock"),
        counters=CountersSettings(url=f"redis://127.0.0.1:{nowhere}"),
        database=DatabaseSettings(host="127.0.0.1", port=nowhere),
        prometheus_url=f"http://127.0.0.1:{nowhere}",
        alertmanager_url=f"http://127.0.0.1:{nowhere}",
    )
    return node.config


@pytest.fixture
def settings(config: Path) -> Settings:
    return load_settings(config)


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
        async with asyncio.timeout(120):
            while gc.get_freeze_count() == 0:
                assert not serving.done()
                await asyncio.sleep(0.05)
        frozen = gc.get_freeze_count()
    finally:
        if not serving.done():
            os.kill(os.getpid(), signal.SIGTERM)
        await serving

    assert frozen > 10_000


class _BrokenVerifier(Verifier):
    """Fails as nobody foresaw."""

    async def verify(self, token: str, presented: Presented = NOTHING) -> Subject:
        raise KeyError(token)


@pytest.mark.parametrize("path", ["/mcp", "/tools"])
async def test_a_fault_outside_of_the_gate_is_told_as_all_errors_are(
    settings: Settings, path: str
) -> None:
    node = app.Node(settings)
    node.verifier = _BrokenVerifier([])
    transport = httpx2.ASGITransport(app=node.application(), raise_app_exceptions=False)
    headers = {"Authorization": "Bearer hidden", "X-Request-Id": "r1"}
    async with httpx2.AsyncClient(
        transport=transport, base_url=node.settings.public_origin
    ) as http:
        answer = await http.get(path, headers=headers)

    assert answer.status_code == 500
    assert "hidden" not in answer.text
    error = answer.json()["error"]
    assert error.get("data", error)["code"] == "internal_error"
    assert ("data" in error) == (path == "/mcp")
    assert error["message"].endswith("in the log of request r1")


_TLS = {"cert": "/absent", "key": "/absent", "ca": "/absent"}
_MONITORING = {"prometheus_url": "https://p.test", "alertmanager_url": "https://p.test"}


@pytest.mark.parametrize(
    ("different", "said"),
    [
        ({"database": {"host": "h", "password": {"file": "bytes"}}}, "bytes is not text (UTF-8)"),
        ({"counters": {"url": "foo://h"}}, "counters.url: Value error, must begin with rediss://"),
        ({"counters": {"url": "rediss://h", "ca": "words"}}, "cannot use the CA file words: "),
        (
            {"telemetry": {"tls": _TLS, "allowed_peers": ["prometheus.test"]}},
            "cannot use the CA file /absent: No such file or directory",
        ),
        ({"tools": {"monitoring": {**_MONITORING, "tls": _TLS}}}, "cannot use the CA file /absent"),
        (
            {"tools": {"kubernetes": {"clusters": {"a": {"kubeconfig": "words"}}}}},
            "tools.kubernetes.clusters.a: words is no kubeconfig",
        ),
    ],
    ids=["secret", "redis", "authority", "listener", "monitoring", "kubernetes"],
)
def test_a_file_that_cannot_be_used_is_named_in_one_line(
    config: Path, tmp_path: Path, different: dict[str, Any], said: str
) -> None:
    (tmp_path / "bytes").write_bytes(b"\x8c" * 48)
    (tmp_path / "words").write_text("words")
    config.write_text(yaml.safe_dump({**yaml.safe_load(config.read_text()), **different}))

    done = subprocess.run(
        [sys.executable, "-m", "mcp_server", "serve", "--config", config],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )

    assert done.returncode == 1
    told = [line for line in done.stderr.splitlines() if not line.startswith("{")]
    assert len(told) == 1, done.stderr
    assert said in told[0]
    assert "Unclosed" not in done.stderr
