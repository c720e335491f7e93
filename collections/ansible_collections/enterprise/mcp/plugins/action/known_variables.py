# SPDX-License-Identifier: Apache-2.0
"""Fails for a variable that no role knows, and names the nearest known one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.enterprise.mcp.plugins.module_utils.names import (
    Known,
    find_unknown,
    read_known,
)


class ActionModule(ActionBase):
    """The action; its options are described in plugins/modules/known_variables.py."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _requires_connection = False

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Return ok, or failed with one sentence for each unknown variable."""
        super().run(tmp, task_vars)
        _, args = self.validate_argument_spec(
            argument_spec={
                "roles_path": {"type": "path", "required": True},
                "hosts": {"type": "list", "elements": "str"},
                "also_known": {"type": "list", "elements": "str", "default": []},
            }
        )
        variables = task_vars or {}
        described = read_known(Path(args["roles_path"]))
        known = Known(described.roles, described.variables | set(args["also_known"]))
        hostvars = variables["hostvars"]
        hosts = variables["groups"]["all"] if args["hosts"] is None else args["hosts"]
        unknown = find_unknown(known, {host: list(hostvars[host]) for host in hosts})
        if not unknown:
            return {"changed": False, "msg": f"{len(known.variables)} variables known"}
        return {
            "failed": True,
            "msg": ". ".join(str(variable) for variable in unknown) + ".",
            "unknown": [
                {"name": u.name, "nearest": u.nearest, "hosts": list(u.hosts)} for u in unknown
            ],
        }
