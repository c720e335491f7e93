# SPDX-License-Identifier: Apache-2.0
"""Variables that the roles declare, and variables of the inventory that are unknown or misshapen."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml


@dataclass(frozen=True)
class Known:
    """Names of the roles, of all their declared variables, and of those declared as `list` or `dict`."""

    roles: frozenset[str]
    variables: frozenset[str]
    structures: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Unknown:
    """An undeclared variable, the nearest declared name (or empty), and the hosts that set it."""

    name: str
    nearest: str
    hosts: tuple[str, ...]

    def __str__(self) -> str:
        """Return one sentence for the operator."""
        advice = f"; did you mean {self.nearest}?" if self.nearest else ""
        return f"{self.name} (on {_shown(self.hosts)}) is not a variable of any role{advice}"


@dataclass(frozen=True)
class Misshapen:
    """A variable that is not the `list` or `dict` that its role declares, and the hosts that set it."""

    name: str
    wanted: str
    hosts: tuple[str, ...]

    def __str__(self) -> str:
        """Return one sentence for the operator, without the value, which may be a secret."""
        example = {"list": "[A, B]", "dict": "{NAME: VALUE}"}[self.wanted]
        kind = {"list": "list", "dict": "dictionary"}[self.wanted]
        return (
            f"{self.name} (on {_shown(self.hosts)}) has to be a {kind}: {self.name}: {example}; "
            f"on the command line -e '{{\"{self.name}\": ...}}' in JSON"
        )


def read_known(roles_path: Path) -> Known:
    """Read the argument specifications of all roles in roles_path."""
    roles: set[str] = set()
    variables: set[str] = set()
    structures: dict[str, str] = {}
    for path in sorted(roles_path.glob("*/meta/argument_specs.yml")):
        roles.add(path.parent.parent.name)
        for entry in (
            yaml.safe_load(path.read_text(encoding="utf-8"))["argument_specs"] or {}
        ).values():
            options = entry.get("options") or {}
            variables.update(options)
            structures |= {
                name: option["type"]
                for name, option in options.items()
                if option.get("type") in ("list", "dict")
            }
    return Known(frozenset(roles), frozenset(variables), structures)


def find_unknown(known: Known, names_by_host: Mapping[str, Iterable[str]]) -> list[Unknown]:
    """Return the undeclared variables that look like variables of a role, sorted by name.

    Their names begin with the name of a role, or `_misspelt` finds the role that they mean.
    """
    hosts_of: dict[str, list[str]] = {}
    for host, names in names_by_host.items():
        for name in names:
            hosts_of.setdefault(name, []).append(host)
    prefixes = tuple(f"{role}_" for role in known.roles)
    found = []
    for name in sorted(hosts_of.keys() - known.variables):
        nearest = _nearest(name, known) if name.startswith(prefixes) else _misspelt(name, known)
        if nearest is not None:
            found.append(Unknown(name, nearest, tuple(sorted(hosts_of[name]))))
    return found


def find_misshapen(
    known: Known, values_by_host: Mapping[str, Mapping[str, Any]]
) -> list[Misshapen]:
    """Return the variables that are not the declared list or dictionary, sorted by name.

    Ansible accepts a string as a list and reads it letter by letter. None means that the variable is not
    set, which the role handles.
    """
    shapes = {"list": list, "dict": Mapping}
    hosts_of: dict[str, list[str]] = {}
    for host, values in values_by_host.items():
        for name, value in values.items():
            if value is not None and not isinstance(value, shapes[known.structures[name]]):
                hosts_of.setdefault(name, []).append(host)
    return [
        Misshapen(name, known.structures[name], tuple(sorted(hosts)))
        for name, hosts in sorted(hosts_of.items())
    ]


def _shown(hosts: tuple[str, ...]) -> str:
    return ", ".join(hosts[:3]) + (" and others" if len(hosts) > 3 else "")


def _nearest(name: str, known: Known) -> str:
    """Return the shortest known name that begins with `name`, else the most similar one, else ""."""
    longer = [other for other in sorted(known.variables) if other.startswith(name)]
    close = _alike(name, known.variables, 0.6)
    return min(longer or close, key=len, default="")


def _misspelt(name: str, known: Known) -> str | None:
    """Return the known name that is meant if `name` misspells the name of its role, else None.

    The beginning must be similar to the name of a role and have at most as many words: `my_redis_port`
    is unrelated. In addition, the rest must be that of a variable of the role, or the whole name must be
    similar to such a variable: `mcp_servers_extra` is unrelated too.
    """
    if name.startswith("_"):
        return None
    words = re.split("[-_]+", name)
    for role in sorted(known.roles):
        variables = {other for other in known.variables if other.startswith(f"{role}_")}
        for count in range(1, role.count("_") + 2):
            beginning, rest = "_".join(words[:count]), "_".join(words[count:])
            # Names of three letters are similar to too many names: lb_state does not mean lab_state.
            if len(beginning) < 4 or not _alike(beginning, [role], 0.8):
                continue
            meant = f"{role}_{rest}"
            close = [meant] if meant in variables else _alike(name, variables, 0.9)
            if close:
                return close[0]
    return None


def _alike(name: str, names: Iterable[str], cutoff: float) -> list[str]:
    """Return the name that is most similar to `name`, if its similarity is at least `cutoff`."""
    return difflib.get_close_matches(name, sorted(names), n=1, cutoff=cutoff)
