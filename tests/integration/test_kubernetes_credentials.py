"""What a kubeconfig or a file names as credentials: renewed, lost for a while, and back."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import structlog
import yaml

from mcp_server.settings import ClusterSettings
from mcp_server.tools.catalog import ToolError
from mcp_server.tools.kubernetes import connection, plugin
from mcp_server.tools.kubernetes.plugin import PluginFailed, ask_plugin
from tests.integration.clusters import Cluster
from tests.integration.conditions import eventually
from tests.integration.kubernetes_calls import Call, family_of
from tests.integration.servers import Authority

pytestmark = pytest.mark.anyio

_VERSION = "client.authentication.k8s.io/v1"
_HERE = {"namespace": "development"}


class Plugin:
    """A program that prints what a file holds, and fails while there is none."""

    def __init__(self, directory: Path) -> None:
        self._answer = directory / "answer"
        self._asked = directory / "asked"
        self.program = directory / "plugin"
        self.program.write_text(
            f"#!/bin/sh\necho >> {self._asked}\ncat {self._answer} || exit 1\n", encoding="utf-8"
        )
        self.program.chmod(0o755)
        self.spec = {"apiVersion": _VERSION, "command": str(self.program)}

    @property
    def asked(self) -> int:
        return self._asked.read_text().count("\n")

    def gives(self, *, lasting: timedelta | None = None, **status: str) -> None:
        if lasting is not None:
            status["expirationTimestamp"] = (datetime.now(UTC) + lasting).isoformat()
        answer = {"apiVersion": _VERSION, "kind": "ExecCredential", "status": status}
        self._answer.write_text(json.dumps(answer))

    def gives_certificate(self, authority: Authority, *, lasting: timedelta) -> None:
        identity = authority.identity("mcp-server", lasting=lasting)
        self.gives(
            clientCertificateData=identity.cert.read_text(), clientKeyData=identity.key.read_text()
        )

    def fails(self) -> None:
        self._answer.unlink()


@pytest.fixture
def made(tmp_path: Path) -> Plugin:
    return Plugin(tmp_path)


@pytest.fixture
def settings(cluster: Cluster, made: Plugin, tmp_path: Path) -> ClusterSettings:
    return by_kubeconfig(cluster, tmp_path, exec=made.spec)


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials are looked at ten times a second."""
    monkeypatch.setattr(connection, "_TOKEN_CHECK_S", 0.1)


@pytest.fixture
def logged() -> Iterator[list[Any]]:
    with structlog.testing.capture_logs() as entries:
        yield entries


def by_kubeconfig(cluster: Cluster, directory: Path, **user: Any) -> ClusterSettings:
    document = yaml.safe_load(cluster.write_kubeconfig("server").read_text())
    document["users"][0]["user"] = user
    file = directory / "kubeconfig"
    file.write_text(yaml.safe_dump(document))
    return ClusterSettings(kubeconfig=file)


async def is_let_in(call: Call) -> bool:
    try:
        await call("get_deployments", **_HERE)
    except ToolError:
        return False
    return True


@pytest.mark.usefixtures("often")
async def test_a_plugin_that_fails_is_asked_until_it_does_not(
    settings: ClusterSettings, made: Plugin, logged: list[Any]
) -> None:
    async with family_of({"main": settings}) as call:
        with pytest.raises(ToolError, match="does not accept this server's credentials"):
            await call("get_deployments", **_HERE)
        while made.asked < 3:
            await is_let_in(call)
        made.gives(token="server-token")
        await eventually(lambda: is_let_in(call), bool)

    told = [e for e in logged if e["event"] == "kubernetes_credentials_not_renewed"]
    assert len(told) >= 2
    assert told[0]["cluster"] == "main"
    assert "ended with status 1: cat: " in told[0]["error"]


@pytest.mark.usefixtures("often")
async def test_what_a_plugin_gave_stands_while_it_fails(
    settings: ClusterSettings, made: Plugin
) -> None:
    made.gives(token="server-token")
    async with family_of({"main": settings}) as call:
        made.fails()
        before = made.asked
        while made.asked < before + 3:
            assert await is_let_in(call)


@pytest.mark.usefixtures("often")
async def test_another_token_of_a_plugin_is_used(settings: ClusterSettings, made: Plugin) -> None:
    made.gives(token="wrong-token")
    async with family_of({"main": settings}) as call:
        assert not await is_let_in(call)
        made.gives(token="server-token")
        await eventually(lambda: is_let_in(call), bool)


@pytest.mark.usefixtures("often")
async def test_another_certificate_of_a_plugin_is_used(
    settings: ClusterSettings, made: Plugin, authority: Authority
) -> None:
    made.gives_certificate(authority, lasting=timedelta(minutes=-1))
    async with family_of({"main": settings}) as call:
        assert not await is_let_in(call)
        made.gives_certificate(authority, lasting=timedelta(days=1))
        await eventually(lambda: is_let_in(call), bool)
        before = made.asked
        while made.asked < before + 3:
            assert await is_let_in(call)


@pytest.mark.usefixtures("often")
async def test_a_certificate_that_cannot_be_used_leaves_the_one_before(
    settings: ClusterSettings, made: Plugin, authority: Authority
) -> None:
    made.gives_certificate(authority, lasting=timedelta(days=1))
    async with family_of({"main": settings}) as call:
        made.gives(clientCertificateData="no certificate", clientKeyData="no key")
        before = made.asked
        while made.asked < before + 3:
            assert await is_let_in(call)


@pytest.mark.usefixtures("often")
async def test_a_plugin_is_asked_only_when_what_it_gave_ends(
    settings: ClusterSettings, made: Plugin, monkeypatch: pytest.MonkeyPatch
) -> None:
    made.gives(token="server-token", lasting=timedelta(minutes=30))
    async with family_of({"main": settings}) as call:
        assert await is_let_in(call)
        await asyncio.sleep(0.5)  # it is looked at some times
        assert made.asked == 1
        made.gives(token="server-token", lasting=timedelta(hours=3))
        # In place of a wait until so little of its time is left.
        monkeypatch.setattr(connection, "_EARLY", timedelta(hours=1))
        await eventually(lambda: is_let_in(call), lambda _: made.asked == 2)
        await asyncio.sleep(0.5)
        assert made.asked == 2


@pytest.mark.usefixtures("often")
async def test_another_token_in_the_file_that_a_kubeconfig_names_is_used(
    cluster: Cluster, tmp_path: Path
) -> None:
    token = tmp_path / "token"
    token.write_text("wrong-token")
    async with family_of({"main": by_kubeconfig(cluster, tmp_path, tokenFile=str(token))}) as call:
        assert not await is_let_in(call)
        token.write_text("server-token")
        await eventually(lambda: is_let_in(call), bool)


async def test_another_authority_of_the_api_server_is_trusted(
    cluster: Cluster, tmp_path: Path
) -> None:
    settings = cluster.settings()
    assert settings.ca is not None
    (tmp_path / "other").mkdir()
    trusted = tmp_path / "trusted.pem"
    trusted.write_bytes(Authority(tmp_path / "other").ca.read_bytes())
    async with family_of({"main": settings.model_copy(update={"ca": trusted})}) as call:
        assert not await is_let_in(call)
        trusted.write_bytes(settings.ca.read_bytes())
        assert await is_let_in(call)


def script(text: str) -> dict[str, Any]:
    return {"apiVersion": _VERSION, "command": "/bin/sh", "args": ["-c", text]}


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"apiVersion": _VERSION}, "needs a command and an apiVersion"),
        ({"apiVersion": _VERSION, "command": "/absent"}, "/absent cannot be started: No such file"),
        (script("echo it is over >&2; exit 3"), "/bin/sh ended with status 3: it is over"),
        (script("echo secret"), r"no ExecCredential \(JSONDecodeError\)$"),
        (script("echo '[]'"), r"no ExecCredential \(TypeError\)$"),
        (script('echo \'{"apiVersion": "v0"}\''), "it answers in v0"),
        (script(f'echo \'{{"apiVersion": "{_VERSION}", "status": {{}}}}\''), "neither a token nor"),
    ],
)
async def test_a_plugin_that_gives_nothing_says_why(spec: dict[str, Any], said: str) -> None:
    with pytest.raises(PluginFailed, match=said) as failed:
        await ask_plugin(spec)

    assert "secret" not in str(failed.value)


@pytest.mark.parametrize("end", ["; wait", ""], ids=["it hangs too", "it has ended"])
async def test_what_a_plugin_started_is_ended_when_nothing_comes_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    monkeypatch.setattr(plugin, "_DEADLINE_S", 4)
    started = tmp_path / "started"

    with pytest.raises(PluginFailed, match=r"/bin/sh did not end within 4 s"):
        await ask_plugin(script(f"sleep 600 & echo $! > {started}{end}"))

    await eventually(lambda: runs(started), lambda it_does: not it_does)


async def test_what_a_plugin_started_ends_with_the_caller_though_the_plugin_ended_before(
    tmp_path: Path,
) -> None:
    started, shell = tmp_path / "started", tmp_path / "shell"
    command = f"echo $$ > {shell}; sleep 600 & echo $! > {started}"
    asked = asyncio.create_task(ask_plugin(script(command)))
    await eventually(lambda: runs(started), bool)
    await eventually(lambda: runs(shell), lambda it_does: not it_does)

    asked.cancel()
    await asyncio.wait([asked])

    await eventually(lambda: runs(started), lambda it_does: not it_does)


async def runs(named_in: Path) -> bool:
    """Tell whether the process runs whose number a file holds."""

    def look() -> bool:
        try:
            number = named_in.read_text().strip()
            return bool(number) and "\nState:\tZ" not in Path(f"/proc/{number}/status").read_text()
        except FileNotFoundError:
            return False

    return await asyncio.to_thread(look)


@pytest.fixture
def words_of_a_client() -> Iterator[None]:
    """Standard input of this process, as `mcpctl stdio` has it."""
    kept = os.dup(0)
    read, write = os.pipe()
    os.write(write, b"words\n")
    os.dup2(read, 0)
    yield
    os.dup2(kept, 0)
    for number in (kept, read, write):
        os.close(number)


@pytest.mark.usefixtures("words_of_a_client")
async def test_a_plugin_hears_what_is_asked_and_nothing_of_a_client() -> None:
    spec = script(
        'read -r line; echo \'{"apiVersion": "\'$VERSION\'", "status": {"token": '
        "\"'$line$(echo $KUBERNETES_EXEC_INFO | tr -dc a-zA-Z)'\"}}'"
    )
    spec["env"] = [{"name": "VERSION", "value": _VERSION}]

    credential = await ask_plugin(spec)

    asked = "apiVersionclientauthenticationksiovkindExecCredentialspecinteractivefalse"
    assert credential.token == asked
