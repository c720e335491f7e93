# SPDX-License-Identifier: Apache-2.0
"""Generates missing secrets once, on the controller, in files that only their owner can read."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.parsing.vault import VaultLib
from ansible.plugins.action import ActionBase
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

KINDS = ("password", "ec_private_key")


def make(kind: str) -> tuple[str, str | None]:
    """Return a new secret and, for a key pair, its public key (both as text, keys in PEM format)."""
    if kind == "password":
        return secrets.token_urlsafe(32), None
    key = ec.generate_private_key(ec.SECP256R1())
    private = key.private_bytes(Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption())
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return private.decode(), public.decode()


def write_once(path: Path, content: bytes, mode: int) -> None:
    """Write a file atomically: readers see no partial file; an existing file is not replaced."""
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        os.link(partial, path)
    finally:
        partial.unlink()


def make_directory(directory: Path) -> None:
    """Create a directory for secrets; a `.gitignore` in the topmost new directory excludes its files."""
    made = [each for each in (directory, *directory.parents) if not each.exists()]
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    if made:
        (made[-1] / ".gitignore").write_text("*\n")


class ActionModule(ActionBase):
    """The action plugin; plugins/modules/generated_secrets.py documents its options."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _requires_connection = False

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Return `changed` and the names of the created files (in check mode: the files to create)."""
        super().run(tmp, task_vars)
        _, args = self.validate_argument_spec(
            argument_spec={
                "directory": {"type": "path", "required": True},
                "secrets": {
                    "type": "list",
                    "elements": "dict",
                    "required": True,
                    "options": {
                        "name": {"type": "str", "required": True},
                        "kind": {"type": "str", "choices": list(KINDS), "default": "password"},
                        "public": {"type": "str"},
                    },
                },
            }
        )
        directory = Path(args["directory"])
        wanted = [
            item
            for item in args["secrets"]
            if not (directory / item["name"]).exists()
            and not self._given(item["name"], task_vars or {})
        ]
        result: dict[str, Any] = {
            "changed": bool(wanted),
            "created": [item["name"] for item in wanted],
        }
        if wanted and not self._task.check_mode:
            try:
                make_directory(directory)
                for item in wanted:
                    self._create(directory, item)
            except OSError as error:
                raise AnsibleActionFail(f"cannot write the secrets: {error}") from error
        return result

    def _given(self, name: str, variables: dict[str, Any]) -> bool:
        """Return whether the variable is set that the lookup enterprise.mcp.secret prefers."""
        return bool(self._templar.template(variables.get(f"secrets_{name}", "")))

    def _create(self, directory: Path, item: dict[str, Any]) -> None:
        private, public = make(item["kind"])
        if public is not None and item["public"]:
            # Public key first: if the private key is missing, the next run generates both again.
            (directory / item["public"]).unlink(missing_ok=True)
            write_once(directory / item["public"], public.encode(), 0o644)
        content = private.encode()
        vault_secrets = self._loader._vault.secrets
        if vault_secrets:
            content = VaultLib(vault_secrets).encrypt(content)
        write_once(directory / item["name"], content, 0o600)
