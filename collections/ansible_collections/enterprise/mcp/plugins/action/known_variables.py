# SPDX-License-Identifier: Apache-2.0
"""Fails for a variable that no role knows, or that is no list where one is meant."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase
from ansible_collections.enterprise.mcp.plugins.module_utils.names import (
    Known,
    find_misshapen,
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
        """Return ok, or failed with one sentence for each variable that is unknown or misshapen."""
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
        names = described.variables | set(args["also_known"])
        known = Known(described.roles, names, described.structures)
        hostvars = variables["hostvars"]
        hosts = variables["groups"]["all"] if args["hosts"] is None else args["hosts"]
        unknown = find_unknown(known, {host: list(hostvars[host]) for host in hosts})
        misshapen = find_misshapen(
            known, {host: _values(hostvars[host], known.structures) for host in hosts}
        )
        if not unknown and not misshapen:
            return {"changed": False, "msg": f"{len(known.variables)} variables known"}
        return {
            "failed": True,
            "msg": ". ".join(str(variable) for variable in [*unknown, *misshapen]) + ".",
            "unknown": [
                {"name": u.name, "nearest": u.nearest, "hosts": list(u.hosts)} for u in unknown
            ],
            "misshapen": [
                {"name": m.name, "wanted": m.wanted, "hosts": list(m.hosts)} for m in misshapen
            ],
        }


def _values(variables: Any, names: Iterable[str]) -> dict[str, Any]:
    """Return those of a host's variables that are set and can be told before its role runs."""
    values = {}
    for name in names:
        if name in variables:
            try:
                values[name] = variables[name]
            except AnsibleError:
                # It needs what only the role has: a fact, or another variable of it.
                continue
    return values
