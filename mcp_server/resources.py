"""The `enterprise://` resources: documents a client may read without calling a tool."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from mcp_server.tools.documents import Document

__all__ = ["Resources"]


class Resources:
    """All documents of one server: single ones, and templates."""

    def __init__(self, documents: Iterable[Document]) -> None:
        self._documents = tuple(sorted(documents, key=lambda document: document.uri))

    def __iter__(self) -> Iterator[Document]:
        return iter(self._documents)

    def find(self, uri: str) -> tuple[Document, Mapping[str, str]] | None:
        """Return the document that `uri` names and the values of its parameters, or None."""
        for document in self._documents:
            values = document.match(uri)
            if values is not None:
                return document, values
        return None
