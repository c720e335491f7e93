"""Obligations of a decision that change a result."""

from __future__ import annotations

from collections.abc import Set
from typing import Any

__all__ = ["MASK", "mask_fields"]

MASK = "[masked by policy]"
"""Stands in the place of a value that the policy masks."""


def mask_fields(document: dict[str, Any], names: Set[str]) -> dict[str, Any]:
    """Return `document` with the value of every field in `names` masked, at any depth."""
    if not names:
        return document
    return {key: MASK if key in names else _masked(value, names) for key, value in document.items()}


def _masked(value: Any, names: Set[str]) -> Any:
    if isinstance(value, dict):
        return mask_fields(value, names)
    if isinstance(value, list):
        return [_masked(item, names) for item in value]
    return value
