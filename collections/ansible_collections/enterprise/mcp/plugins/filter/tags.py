# SPDX-License-Identifier: Apache-2.0
"""Tells from the tags of a run whether it chooses a role, and which of the role's steps it takes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

DOCUMENTATION = """
name: tags
short_description: Whether the tags of a run choose a role, and the steps that may change a host
description:
  - The steps of a role have ordinary tags. What belongs to every step, such as its checks, cannot have
    the tags of all steps, because C(--skip-tags) of one step would skip it for the others. It has the
    tag C(always) and one of these conditions.
options:
  _input:
    description: C(ansible_run_tags).
    type: list
    elements: str
    required: true
"""

CHANGES = ("install", "configure", "service")
"""The steps that may change a host, in their order."""
_EVERYTHING = frozenset({"all", "tagged"})


def choose_role(run_tags: Iterable[str], *names: str) -> bool:
    """Return whether a run takes a step of a role.

    Args:
        run_tags: the tags of the run.
        names: the tags of the role, and of steps that only this role has.
    """
    steps = {"preflight", *CHANGES, "verify"}
    return not (_EVERYTHING | steps | set(names)).isdisjoint(run_tags)


def changing_steps(run_tags: Iterable[str], skip_tags: Iterable[str], *names: str) -> list[str]:
    """Return the steps of a run that may change a host, in their order.

    Args:
        run_tags: the tags of the run.
        skip_tags: the tags that the run skips.
        names: the tags of the role.
    """
    run, skipped = set(run_tags), set(skip_tags)
    whole = not (_EVERYTHING | set(names)).isdisjoint(run)
    return [step for step in CHANGES if (whole or step in run) and step not in skipped]


class FilterModule:
    """The filters, by name."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name, for Ansible."""
        return {"changing_steps": changing_steps, "choose_role": choose_role}
