"""The client of `/status`: the health of the node on this host."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Mapping
from typing import Any

import aiohttp

from mcp_server.infrastructure.tls import client_context
from mcp_server.settings import TelemetrySettings

__all__ = ["ProbeFailed", "probe", "shortcoming", "wait_until_good"]

_INTERVAL_S = 0.25


class ProbeFailed(Exception):
    """The node did not answer; the message says why."""


async def probe(settings: TelemetrySettings, *, timeout_s: float) -> dict[str, Any]:
    """Return the node's `/status`: readiness, checks, policy revision, requests in progress.

    Args:
        settings: the telemetry listener; its certificate is also the client's.
        timeout_s: deadline in seconds.

    Raises:
        ProbeFailed: no connection, no answer in time, or one that is not a JSON object.
    """
    context: ssl.SSLContext | bool = True
    scheme = "http"
    if settings.tls is not None:
        scheme = "https"
        context = client_context(settings.tls.ca, settings.tls)
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    url = f"{scheme}://{host}:{settings.port}/status"
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=timeout_s)) as session,
            session.get(url, ssl=context) as response,
        ):
            answer = await response.json()
    except TimeoutError:
        raise ProbeFailed(f"no answer from {url} within {timeout_s:g} s") from None
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise ProbeFailed(f"{url}: {error or type(error).__name__}") from error
    if not isinstance(answer, dict):
        raise ProbeFailed(f"{url}: the answer is not a JSON object")
    return answer


def shortcoming(answer: Mapping[str, Any], revision: str | None = None) -> str | None:
    """Return why a status is not good, in words, or None when it is good.

    Args:
        revision: the policy revision that the node must use; None: any.
    """
    if answer.get("draining") is True:
        return "it is draining"
    if answer.get("ready") is not True:
        checks = answer.get("checks")
        states = checks if isinstance(checks, dict) else {}
        down = [f"{name} is {state}" for name, state in states.items() if state != "up"]
        return ", ".join(down) or "it is not ready"
    decides_by = answer.get("policy_revision")
    if revision is not None and decides_by != revision:
        return f"it decides by the policies {decides_by or 'of no revision'} and not by {revision}"
    return None


async def wait_until_good(
    settings: TelemetrySettings, *, wait_s: float, timeout_s: float, revision: str | None = None
) -> dict[str, Any]:
    """Repeat `probe` until the status is good, and return the last status.

    After `wait_s` the last status is returned as it is; `shortcoming` names its fault.

    Args:
        wait_s: seconds after which `probe` is not repeated; 0 probes once.
        timeout_s: deadline of one probe in seconds.
        revision: as for `shortcoming`.

    Raises:
        ProbeFailed: the last probe got no answer.
    """
    until = time.monotonic() + wait_s
    while True:
        last = time.monotonic() + _INTERVAL_S > until
        try:
            answer = await probe(settings, timeout_s=timeout_s)
            if last or shortcoming(answer, revision) is None:
                return answer
        except ProbeFailed:
            if last:
                raise
        await asyncio.sleep(_INTERVAL_S)
