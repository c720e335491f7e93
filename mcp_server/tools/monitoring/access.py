"""HTTP clients of Prometheus and Alertmanager, made from the settings of each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import HttpUrl

from mcp_server.settings import AccessSettings, MonitoringSettings
from mcp_server.tools.backend import HttpBackend
from mcp_server.tools.catalog import ToolError

__all__ = ["backend_of"]


def backend_of(
    name: str,
    url: HttpUrl,
    access: AccessSettings,
    settings: MonitoringSettings,
    *,
    classify_error: Callable[[int, Any], ToolError | None] = lambda _status, _body: None,
) -> HttpBackend:
    """Return a client with these settings; see `HttpBackend` for `name` and `classify_error`."""
    return HttpBackend(
        name,
        str(url),
        tls=None if access.without_our_certificate else settings.tls,
        ca=access.ca,
        bearer=access.token,
        headers={} if access.tenant is None else {"X-Scope-OrgID": access.tenant},
        timeout_s=settings.timeout_s,
        classify_error=classify_error,
    )
