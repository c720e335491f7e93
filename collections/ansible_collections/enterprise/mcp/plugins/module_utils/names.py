# SPDX-License-Identifier: Apache-2.0
"""Which variables the roles know, and which of the inventory's they do not."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml


@dataclass(frozen=True)
class Known:
    """The names of the roles, and of all variables that they describe."""

    roles: frozenset[str]
    variables: frozenset[str]


@dataclass(frozen=True)
class Unknown:
    """A variable that no role knows: the nearest known name (or empty) and the hosts that have it."""

    name: str
    nearest: str
    hosts: tuple[str, ...]

    def __str__(self) -> str:
        """One sentence for a person."""
        shown = ", ".join(self.hosts[:3]) + (" and others" if len(self.hosts) > 3 else "")
        advice = f"; did you mean {self.nearest}?" if self.nearest else ""
        return f"{self.name} (on {shown}) is not a variable of any role{advice}"


def read_known(roles_path: Path) -> Known:
    """Read the argument specifications of all roles below roles_path."""
    roles: set[str] = set()
    variables: set[str] = set()
    for path in sorted(roles_path.glob("*/meta/argument_specs.yml")):
        roles.add(path.parent.parent.name)
        for entry in (
            yaml.safe_load(path.read_text(encoding="utf-8"))["argument_specs"] or {}
        ).values():
            variables.update(entry.get("options") or {})
    return Known(frozenset(roles), frozenset(variables))


def find_unknown(known: Known, names_by_host: Mapping[str, Iterable[str]]) -> list[Unknown]:
    """Return the variables that begin with a role's name but are not known, sorted by name."""
    prefixes = tuple(f"{role}_" for role in known.roles)
    found: dict[str, list[str]] = {}
    for host, names in names_by_host.items():
        for name in names:
            if name.startswith(prefixes) and name not in known.variables:
                found.setdefault(name, []).append(host)
    return [
        Unknown(name, _nearest(name, known), tuple(sorted(hosts)))
        for name, hosts in sorted(found.items())
    ]


def _nearest(name: str, known: Known) -> str:
    close = difflib.get_close_matches(name, sorted(known.variables), n=1, cutoff=0.6)
    return close[0] if close else ""
