"""One walk over JSON-like values, for every rule that changes them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["Walker"]


class Walker:
    """Copies a JSON-like value, depth first and in order; subclasses replace parts of the copy.

    A subclass overrides `text` to replace texts, `object` to decide by keys, and the other methods where
    it bounds or reports what it copies.

    Attributes:
        depth_limit: objects and arrays that are nested deeper are given to `too_deep`.
    """

    depth_limit: float = math.inf

    def value(self, value: Any, depth: int = 0) -> Any:
        """Return the copy of a value of any type."""
        kind = type(value)
        # The types of parsed JSON first: the checks of abstract classes below are slow.
        if kind is str:
            return self.text(value)
        if kind is dict or isinstance(value, Mapping):
            return self.object(value, depth) if depth < self.depth_limit else self.too_deep(value)
        if kind is list or isinstance(value, list | tuple):
            return self.array(value, depth) if depth < self.depth_limit else self.too_deep(value)
        if value is None or isinstance(value, int | float):
            return self.scalar(value)
        return self.text(value) if isinstance(value, str) else self.other(value)

    def text(self, text: str) -> Any:
        """Return the replacement for a string."""
        return text

    def scalar(self, value: float | None) -> Any:
        """Return the replacement for a number, a boolean or null."""
        return value

    def object(self, value: Mapping[Any, Any], depth: int) -> Any:
        """Return the replacement for an object."""
        return {key: self.value(item, depth + 1) for key, item in value.items()}

    def array(self, value: Sequence[Any], depth: int) -> Any:
        """Return the replacement for an array."""
        return [self.value(item, depth + 1) for item in value]

    def too_deep(self, value: Any) -> Any:
        """Return the replacement for an object or array beyond the depth limit."""
        return value

    def other(self, value: Any) -> Any:
        """Return the replacement for a value of a type that JSON does not have."""
        return value
