"""Declaration of an MCP resource or resource template."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Set
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from urllib.parse import unquote

from mcp_server.tools.catalog import Scope, ToolContext, expand_mask

__all__ = ["ROWS_BYTES", "Resource", "rows_that_fit"]

ROWS_BYTES = 56 * 1024
"""Maximum bytes of the rows in a resource; the rest of the resource fits the remaining budget."""

Complete = Callable[[str, str, Mapping[str, str], ToolContext], Awaitable[list[str]]]

_PARAMETER = re.compile(r"\{([a-z_]+)\}")


@dataclass(frozen=True)
class Resource:
    """Declaration of one resource, or of a resource template.

    Attributes:
        uri: URI or URI template (RFC 6570, level 1) such as `enterprise://cmdb/assets/{id}`; also its
            name in the policy.
        permission: permission that the policy requires.
        read: returns the content as JSON text, given the parameter values. Raises ToolError, or
            InvalidArguments if a parameter names something that does not exist.
        source: system that the content comes from, such as `the CMDB`.
        complete: returns the values of a parameter that begin with a text. Gets the name of the
            parameter, the text, the known values of the other parameters, and the caller. A client gets
            the first 100; a further value tells it that there are more.
        lists: name of what the content lists, such as `namespace`, if `complete` knows these names too.
        defaults: parameter values that a completion uses if the client gives none.
        scope: parameters that name the resource for the policy.
        revealed_by: for a field or a parameter, the other fields that reveal its value and are
            therefore masked with it.
    """

    uri: str
    name: str
    title: str
    description: str
    permission: str
    read: Callable[[ToolContext, Mapping[str, str]], Awaitable[str]]
    source: str
    complete: Complete | None = None
    lists: str | None = None
    defaults: Mapping[str, str] = field(default_factory=dict)
    scope: Scope = field(default_factory=Scope)
    revealed_by: Mapping[str, Iterable[str]] = field(default_factory=dict)
    mime_type: str = "application/json"

    @property
    def family(self) -> str:
        """First part of the URI after the scheme: `cmdb` in `enterprise://cmdb/assets`."""
        return self.uri.partition("://")[2].partition("/")[0]

    @cached_property
    def parameters(self) -> tuple[str, ...]:
        """Parameter names of the template; empty for a single resource."""
        return tuple(_PARAMETER.findall(self.uri))

    def masked_names(self, names: Set[str]) -> frozenset[str]:
        """Return the fields and parameters to mask if the policy masks `names`."""
        return expand_mask(names, self.revealed_by)

    def properties(self, parameters: Mapping[str, str]) -> dict[str, str]:
        """Return the properties of the resource for the policy: namespace, cluster, asset."""
        scope = {
            "namespace": self.scope.namespace,
            "cluster": self.scope.cluster,
            "asset": self.scope.asset,
        }
        return {
            key: parameters[name]
            for key, name in scope.items()
            if name is not None and name in parameters
        }

    def match(self, uri: str) -> dict[str, str] | None:
        """Return the parameter values if `uri` matches, else None.

        Values are percent-decoded once (RFC 3986), are not empty and hold no control characters.
        """
        found = self._pattern.fullmatch(uri)
        if found is None:
            return None
        values = {name: unquote(value) for name, value in found.groupdict().items()}
        return values if all(value.isprintable() for value in values.values()) else None

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        parts = _PARAMETER.split(self.uri)
        # Every second part is a parameter name; its value is one encoded path segment.
        return re.compile(
            "".join(
                f"(?P<{part}>(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{{2}}){{1,1024}})"
                if number % 2
                else re.escape(part)
                for number, part in enumerate(parts)
            )
        )


def rows_that_fit(rows: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the first rows whose JSON takes at most `ROWS_BYTES` bytes."""
    fit: list[Mapping[str, Any]] = []
    size = 0
    for row in rows:
        size += len(json.dumps(row).encode())
        if size > ROWS_BYTES:
            break
        fit.append(row)
    return fit
