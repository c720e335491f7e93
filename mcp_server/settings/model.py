"""What all sections of the configuration share."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["Model", "Port", "Seconds", "SettingsError", "TlsSettings", "is_loopback"]

Port = Annotated[int, Field(ge=0, le=65535)]
Seconds = Annotated[float, Field(gt=0, le=300)]


class SettingsError(Exception):
    """The configuration cannot be used; the message lists every fault on a line of its own."""


class Model(BaseModel):
    """A section: unknown keys are errors, and messages repeat no value."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        use_attribute_docstrings=True,  # descriptions in the JSON Schema
    )


class TlsSettings(Model):
    """Our certificate and key (PEM) and the CA that the peer's certificate must come from."""

    cert: Path
    key: Path
    ca: Path


def is_loopback(host: str) -> bool:
    """Return whether a host, an address with or without brackets, is this machine."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
