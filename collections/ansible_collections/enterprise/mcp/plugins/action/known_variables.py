# SPDX-License-Identifier: Apache-2.0
"""Fails for a variable that no role declares, or that is not the declared list or dictionary."""

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
    """The action plugin; plugins/modules/known_variables.py documents its options."""

    TRANSFERS_FILES = False
    _supports_check_mode = True
    _requires_connection = False

    def run(
        self, tmp: str | None = None, task_vars: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        """Return ok, or failed with one sentence for each unknown or misshapen variable."""
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
    """Return the variables of a host that are set and can be templated before its role runs."""
    values = {}
    for name in names:
        if name in variables:
            try:
                values[name] = variables[name]
            except AnsibleError:
                # The value needs a fact or another variable that only the role sets.
                continue
    return values
