"""The `enterprise://` resources: documents a client may read without calling a tool."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from mcp_server.tools.documents import Document

__all__ = ["Resources"]


class Resources:
    """All documents of one server, by URI."""

    def __init__(self, documents: Iterable[Document]) -> None:
        self._by_uri = {document.uri: document for document in sorted(documents, key=_uri)}

    def __iter__(self) -> Iterator[Document]:
        return iter(self._by_uri.values())

    def find(self, uri: str) -> Document | None:
        """Return the document named `uri`, or None."""
        return self._by_uri.get(uri)


def _uri(document: Document) -> str:
    return document.uri
