"""What all sections of the configuration share."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["Model", "Port", "Seconds", "Secret", "SettingsError", "TlsSettings", "is_loopback"]

Port = Annotated[int, Field(ge=0, le=65535)]
Seconds = Annotated[float, Field(gt=0, le=300)]


class SettingsError(Exception):
    """The configuration cannot be used; the message lists every fault on a line of its own."""


class Model(BaseModel):
    """A section: unknown keys are errors, and messages repeat no value."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


class Secret(Model):
    """A secret in a file of its own; the configuration never contains the value."""

    file: Path

    def reveal(self) -> str:
        """Return the secret without the trailing newline.

        Raises:
            SettingsError: the file is missing, unreadable, empty or not text.
        """
        try:
            value = self.file.read_text(encoding="utf-8").rstrip("\r\n")
        except OSError as error:
            raise SettingsError(
                f"cannot read the secret file {self.file}: {error.strerror}"
            ) from None
        except UnicodeDecodeError:
            raise SettingsError(
                f"the secret file {self.file} is not text (UTF-8): write random bytes as text, "
                "such as the output of `openssl rand -base64 48`"
            ) from None
        if not value:
            raise SettingsError(f"the secret file {self.file} is empty")
        if value.startswith("$ANSIBLE_VAULT;"):
            raise SettingsError(
                f"the secret file {self.file} is encrypted: pipe `ansible-vault view {self.file}` "
                "into the command and name /dev/stdin as the file"
            )
        return value


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
