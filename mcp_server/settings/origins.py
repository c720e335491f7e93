"""`cors`: the web origins whose pages may call this server."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator

from mcp_server.settings.model import Model, is_loopback

__all__ = ["CorsSettings"]

_HOST = re.compile(
    r"([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
)
_DEFAULT_PORTS = {"https": 443, "http": 80}
_ACCEPTED = (
    "accepted are origins such as https://portal.company.com, and https://*.company.com for all names "
    "with one more label"
)


def _origin(value: str) -> str:
    """Return an origin in the form in which browsers send it (RFC 6454 section 6.2).

    `https://*.company.com` stands for all names with one label more, as in a certificate.
    """
    if value.strip() == "*":
        raise ValueError(
            f"* would let every website call this server on behalf of its visitors; {_ACCEPTED}"
        )
    try:
        url = urlsplit(value)
        host, port = (url.hostname or "").lower(), url.port
    except ValueError as error:
        raise ValueError(f"{error}; {_ACCEPTED}") from None
    if not host or value.lower() not in _spellings(url.scheme, url.netloc.lower()):
        raise ValueError(f"is no origin: scheme, host and port, without a path; {_ACCEPTED}")
    if url.scheme != "https" and not (url.scheme == "http" and is_loopback(host)):
        raise ValueError("must begin with https://: others could change the page on its way")
    if not _is_address(host):
        name = host.removeprefix("*.")
        if _HOST.fullmatch(name) is None:
            raise ValueError(
                f"* stands for the first label only, and a name has ASCII letters (xn--…); {_ACCEPTED}"
            )
        if name != host and "." not in name:
            raise ValueError(f"*.{name} would be all domains below a top-level domain; {_ACCEPTED}")
    elif ":" in host:
        host = f"[{ipaddress.ip_address(host)}]"
    shown = "" if port in (None, _DEFAULT_PORTS[url.scheme]) else f":{port}"
    return f"{url.scheme}://{host}{shown}"


def _spellings(scheme: str, netloc: str) -> tuple[str, str]:
    without_user = netloc.rpartition("@")[2]
    return f"{scheme}://{without_user}", f"{scheme}://{without_user}/"


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


class CorsSettings(Model):
    """Pages of other origins that may call this server (https://fetch.spec.whatwg.org, CORS)."""

    allowed_origins: tuple[Annotated[str, AfterValidator(_origin)], ...] = ()
    """Origins such as https://portal.company.com, or https://*.company.com for all names with one more
    label. Pages of all other origins are refused."""
