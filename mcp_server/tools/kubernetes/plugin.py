"""Credential plugins: the programs that a kubeconfig names under `exec`.

Protocol:
https://kubernetes.io/docs/reference/access-authn-authz/authentication/#client-go-credential-plugins
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from mcp_server.redaction import redact_text
from mcp_server.tools.text import truncate_middle

__all__ = ["Credential", "PluginFailed", "ask_plugin"]

_DEADLINE_S = 15.0
_MAX_SAID = 300


class PluginFailed(Exception):
    """A plugin returned no credential; the message is for the log."""


@dataclass(frozen=True, slots=True)
class Credential:
    """A credential of a plugin: a token, or a certificate with its key (PEM), or both.

    Attributes:
        expires_at: time of expiry; None: unknown.
    """

    token: str | None
    certificate: str | None
    key: str | None
    expires_at: datetime | None


async def ask_plugin(plugin: Mapping[str, Any]) -> Credential:
    """Run a plugin and return the credential that it prints.

    Args:
        plugin: the object `exec` of a kubeconfig.

    Raises:
        PluginFailed: the plugin cannot be started, fails, times out, or prints an invalid credential.
    """
    command, version = plugin.get("command"), plugin.get("apiVersion")
    if not command or not version:
        raise PluginFailed("exec needs a command and an apiVersion")
    printed = await _run(
        [str(command), *map(str, plugin.get("args") or ())],
        {
            **os.environ,
            **{str(each["name"]): str(each["value"]) for each in plugin.get("env") or ()},
            "KUBERNETES_EXEC_INFO": json.dumps(
                {"apiVersion": version, "kind": "ExecCredential", "spec": {"interactive": False}}
            ),
        },
    )
    try:
        document = json.loads(printed)
        if document["apiVersion"] != version:
            raise PluginFailed(f"it answers in {document['apiVersion']}, {version} was asked for")
        return _credential(document["status"])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        # The message does not contain the output, which may be a secret.
        raise PluginFailed(f"its output is no ExecCredential ({type(error).__name__})") from None


async def _run(command: list[str], environment: dict[str, str]) -> bytes:
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            env=environment,
            # With `mcpctl stdio`, standard input belongs to the MCP client.
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            # A process group of its own, so that child processes of the plugin can be ended too.
            start_new_session=True,
        )
    except OSError as error:
        raise PluginFailed(f"{command[0]} cannot be started: {error.strerror}") from None
    printed = None
    try:
        async with asyncio.timeout(_DEADLINE_S):
            printed, said = await process.communicate()
    except TimeoutError:
        raise PluginFailed(f"{command[0]} did not end within {_DEADLINE_S:g} s") from None
    finally:
        if printed is None:
            # The plugin may have ended while a child process still holds its output.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    if process.returncode != 0:
        words = truncate_middle(redact_text(said.decode(errors="replace").strip()), _MAX_SAID)
        raise PluginFailed(f"{command[0]} ended with status {process.returncode}: {words}")
    return printed


def _credential(status: Mapping[str, Any]) -> Credential:
    token, certificate = status.get("token"), status.get("clientCertificateData")
    key = status.get("clientKeyData")
    if not token and not (certificate and key):
        raise PluginFailed("it gave neither a token nor a certificate with its key")
    expires = status.get("expirationTimestamp")
    expires_at = None if expires is None else datetime.fromisoformat(expires)
    if expires_at is not None and expires_at.tzinfo is None:
        expires_at = expires_at.replace(tzinfo=UTC)
    return Credential(token or None, certificate or None, key or None, expires_at)
