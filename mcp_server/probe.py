"""Asking a running node how it is, from the host it runs on."""

from __future__ import annotations

import ssl
from typing import Any

import aiohttp

from mcp_server.settings import TelemetrySettings
from mcp_server.tls import client_context

__all__ = ["ProbeFailed", "probe"]


class ProbeFailed(Exception):
    """The node gave no answer; the message says why."""


async def probe(settings: TelemetrySettings, *, timeout_s: float) -> dict[str, Any]:
    """Return what the node's `/status` says: readiness, checks, revision, requests in progress.

    Args:
        settings: the telemetry listener; its own certificate is shown as the client's.
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
