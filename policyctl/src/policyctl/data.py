"""Policy data: strict YAML, and the overrides that an inventory merges into it."""

from __future__ import annotations

from typing import Any

import yaml

from policyctl.opa import PolicyError

# The Ansible variable that holds the overrides; messages name it.
OVERRIDES = "opa_policy_data_overrides"


class StrictLoader(yaml.SafeLoader):
    """A YAML loader that refuses duplicate keys; PyYAML and OPA use the last of them silently."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Return the mapping; raise ConstructorError for a duplicate key."""
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"duplicate key {key!r}", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


def parse_yaml(text: str, source: str) -> Any:
    """Return the value of a YAML document.

    Args:
        source: the file or the option that the text comes from, for the error message.

    Raises:
        PolicyError: the text is not valid YAML, or has a duplicate key.
    """
    try:
        return yaml.load(text, StrictLoader)  # noqa: S506 - a SafeLoader that refuses more
    except yaml.YAMLError as error:
        raise PolicyError(f"{source} cannot be read: {error}") from error


def parse_overrides(text: str | None) -> dict[str, Any]:
    """Return the overrides: JSON or YAML with one key for each folder of policies/config.

    Raises:
        PolicyError: the text is not a mapping with such keys.
    """
    overrides = parse_yaml(text or "{}", "The overrides of the policy data") or {}
    if not isinstance(overrides, dict) or not all(isinstance(area, str) for area in overrides):
        raise PolicyError(
            "The overrides of the policy data must be a mapping, such as {limits: {user: {limit: 9}}}."
        )
    return overrides


def merge_patch(base: Any, patch: Any) -> Any:
    """Return `base` with a JSON Merge Patch applied (RFC 7396).

    Objects are merged key by key, null removes a key, every other value replaces the one before.
    """
    if not isinstance(patch, dict):
        return patch
    result = dict(base) if isinstance(base, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge_patch(result.get(key), value)
    return result
