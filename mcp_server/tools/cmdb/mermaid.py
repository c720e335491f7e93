"""A topology as a picture: Mermaid, which models read and most chat clients draw."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["mermaid"]

_SHAPES = {"database": ("[(", ")]"), "application": ("([", "])")}
_BOX = ("[", "]")
# Mermaid's own escapes. What stands between quotes is a label and nothing else, as long as it holds
# no quote; a backtick after the quote would make it Markdown, and < > HTML.
_ESCAPES = str.maketrans(
    {
        "#": "#35;",
        '"': "#quot;",
        "<": "#lt;",
        ">": "#gt;",
        "&": "#amp;",
        "`": "#96;",
        "\\": "#92;",
        "|": "#124;",
    }
)
_MAX_LABEL = 80


def mermaid(nodes: Sequence[Mapping[str, Any]], edges: Sequence[Mapping[str, Any]]) -> str:
    """Return a flowchart of the nodes and of the edges between them.

    Args:
        nodes: with id, name, type and status; one that is not active has a dashed border.
        edges: with from, to (ids of nodes) and type; where ids are masked, nobody can tell which.

    Returns:
        Mermaid source. Texts of the CMDB stand in quoted, escaped labels only, so that they cannot
        add nodes, links or styles.
    """
    keys = {node["id"]: f"n{number}" for number, node in enumerate(nodes)}
    if len(keys) < len(nodes):
        keys = {}
    lines = ["flowchart LR"]
    for number, node in enumerate(nodes):
        begin, end = _SHAPES.get(node["type"], _BOX)
        title = node["id"] if node["id"] == node["name"] else f"{node['id']}: {node['name']}"
        state = "" if node["status"] == "active" else f" ({node['status']})"
        lines.append(f'  n{number}{begin}"{_label(title + state)}"{end}')
    lines += [
        f'  {keys[edge["from"]]} -->|"{_label(edge["type"])}"| {keys[edge["to"]]}'
        for edge in edges
        if edge["from"] in keys and edge["to"] in keys
    ]
    resting = [f"n{number}" for number, node in enumerate(nodes) if node["status"] != "active"]
    if resting:
        lines += [
            "  classDef resting stroke-dasharray: 4 4",
            f"  class {','.join(resting)} resting",
        ]
    return "\n".join(lines)


def _label(text: str) -> str:
    printable = "".join(char if char.isprintable() else " " for char in text)
    flat = " ".join(printable.split())
    short = flat if len(flat) <= _MAX_LABEL else flat[: _MAX_LABEL - 1] + "…"
    return short.translate(_ESCAPES)
