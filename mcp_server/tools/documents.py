"""How a readable document (an MCP resource), or a family of them, is declared."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Set
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from urllib.parse import unquote

from mcp_server.tools.catalog import Scope, ToolContext, hidden_with

__all__ = ["ROWS_BYTES", "Document", "fitting"]

ROWS_BYTES = 56 * 1024
"""What the rows of a document may take; the rest of it stays below the budget of a whole one."""

Complete = Callable[[str, str, Mapping[str, str], ToolContext], Awaitable[list[str]]]

_PARAMETER = re.compile(r"\{([a-z_]+)\}")


@dataclass(frozen=True)
class Document:
    """One document, or all documents whose URI fits a template.

    Attributes:
        uri: what the policy and clients call it; a template (RFC 6570, level 1) has parameters such
            as `enterprise://cmdb/assets/{id}`.
        permission: what the policy asks of the reader.
        read: returns the document as JSON text, given the values of the parameters; raises ToolError,
            or InvalidArguments where a parameter names nothing that is there.
        source: where text in it comes from, such as `the CMDB`.
        complete: values that a parameter may have and that begin with the given text: gets the
            parameter's name, the text, the values of the other parameters that are known, and the
            caller. Callers get the first 100; one more tells them that there are more.
        lists: what the document itself lists, such as `namespace`, where `complete` knows that too.
        defaults: values that are meant while those of parameters are not known, in a completion.
        scope: which parameters name the resource that the policy judges.
        told_by: of a field or a parameter: which others tell its value as well, and are masked with it.
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
    told_by: Mapping[str, Iterable[str]] = field(default_factory=dict)
    mime_type: str = "application/json"

    @property
    def family(self) -> str:
        """The first part after the scheme: `cmdb` of `enterprise://cmdb/assets`."""
        return self.uri.partition("://")[2].partition("/")[0]

    @cached_property
    def parameters(self) -> tuple[str, ...]:
        """The names of the template's parameters; none for a single document."""
        return tuple(_PARAMETER.findall(self.uri))

    def hidden(self, names: Set[str]) -> frozenset[str]:
        """Return all fields and parameters that are masked where the policy masks `names`."""
        return hidden_with(names, self.told_by)

    def properties(self, parameters: Mapping[str, str]) -> dict[str, str]:
        """Return what the policy may judge of the document: namespace, cluster, asset."""
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
        """Return the values of the parameters when `uri` is one of these documents, or None.

        Values are percent-decoded once (RFC 3986); none is empty or holds control characters.
        """
        found = self._pattern.fullmatch(uri)
        if found is None:
            return None
        values = {name: unquote(value) for name, value in found.groupdict().items()}
        return values if all(value.isprintable() for value in values.values()) else None

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        parts = _PARAMETER.split(self.uri)
        # Every second part is a parameter's name; its value is one path segment, encoded.
        return re.compile(
            "".join(
                f"(?P<{part}>(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{{2}}){{1,1024}})"
                if number % 2
                else re.escape(part)
                for number, part in enumerate(parts)
            )
        )


def fitting(rows: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return the first rows that fit a document, as the JSON they are written as."""
    fit: list[Mapping[str, Any]] = []
    size = 0
    for row in rows:
        size += len(json.dumps(row).encode())
        if size > ROWS_BYTES:
            break
        fit.append(row)
    return fit
