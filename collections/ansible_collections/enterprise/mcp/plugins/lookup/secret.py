# SPDX-License-Identifier: Apache-2.0
"""Reads a secret: from its variable, else from its file, else a placeholder in check mode."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase

DOCUMENTATION = r"""
name: secret
short_description: Read a secret of this installation
version_added: 0.1.0
author: [enterprise-mcp]
description:
  - Returns the variable C(secrets_NAME) when it is set and not empty.
  - Otherwise returns the content of the file NAME in C(secrets_state_dir), decrypted when it is a
    vault file.
  - In check mode, before the first real run, returns a placeholder.
options:
  _terms:
    description: Names of secrets.
    required: true
  directory:
    description:
      - Folder of the files. By default C(secrets_state_dir), else C(.state/secrets) beside the
        inventory.
    type: path
"""

EXAMPLES = r"""
- name: Show the length of a secret
  ansible.builtin.debug:
    msg: "{{ lookup('enterprise.mcp.secret', 'redis_password') | length }}"
"""

RETURN = r"""
_raw:
  description: The secrets, without the line end of the file.
  type: list
  elements: str
"""

# Placeholder in check mode before the first real run; long enough for every check of a minimum length.
PLACEHOLDER = "not-made-yet-this-is-what-check-mode-shows"


class LookupModule(LookupBase):
    """The lookup plugin; DOCUMENTATION describes its options."""

    def run(
        self, terms: list[str], variables: dict[str, Any] | None = None, **kwargs: Any
    ) -> list[str]:
        """Return one string for each name; raise AnsibleLookupError for a secret that does not exist."""
        self.set_options(var_options=variables, direct=kwargs)
        return [self._read(name, variables or {}) for name in terms]

    def _read(self, name: str, variables: dict[str, Any]) -> str:
        given = variables.get(f"secrets_{name}")
        if given:
            return str(self._templar.template(given))
        directory = self.get_option("directory") or self._state_dir(variables)
        path = Path(directory) / name
        if path.exists():
            content = self._loader.get_text_file_contents(str(path))
            return str(content.rstrip("\n") if "-----BEGIN" not in content else content)
        if variables.get("ansible_check_mode"):
            return PLACEHOLDER
        raise AnsibleLookupError(
            f"The secret {name} does not exist: set secrets_{name}, or run playbooks/secrets.yml, "
            f"which makes {path}."
        )

    def _state_dir(self, variables: dict[str, Any]) -> str:
        configured = variables.get("secrets_state_dir")
        if configured:
            return str(self._templar.template(configured))
        return str(Path(variables["inventory_dir"]) / ".state" / "secrets")
