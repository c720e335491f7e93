"""No role and no namespace is compared in Python: the code does not even know their names."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]

ALLOWED = {
    # Examples in what `mcpctl token` says.
    ("mcp_server/cli/token.py", "mcp:viewer"),
    # Environments of assets, which are called like namespaces.
    ("mcp_server/cli/cmdb.py", "staging"),
    ("mcp_server/infrastructure/database/migrations/versions/0001_audit_and_cmdb.py", "staging"),
    ("mcp_server/tools/cmdb/assets.py", "staging"),
    ("mcp_server/cli/cmdb_import/netbox.py", "development"),
    ("mcp_server/cli/cmdb_import/netbox.py", "production"),
    ("mcp_server/cli/cmdb_import/netbox.py", "staging"),
    ("mcp_server/tools/cmdb/model.py", "staging"),
}


def _shipped(area: str) -> dict[str, object]:
    data: dict[str, object] = yaml.safe_load(
        (ROOT / "policies" / "config" / area / "data.yaml").read_text()
    )
    return data


def _literals(source: str) -> Iterator[str]:
    """Yield each text of the code; what stands alone, as a docstring does, is compared with nothing."""
    tree = ast.parse(source)
    alone = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and id(node) not in alone:
            match node.value:
                case str(text):
                    yield text
                case bytes(data):
                    yield data.decode(errors="replace")


def _named(source: str, names: Iterable[str]) -> set[str]:
    """Return the names that are words of the code's texts."""
    words = {name: re.compile(rf"(?<![\w:-]){re.escape(name)}(?![\w-])") for name in names}
    literals = list(_literals(source))
    return {name for name, word in words.items() if any(map(word.search, literals))}


def test_the_code_names_no_role_and_no_namespace() -> None:
    namespaces = _shipped("namespaces")["listed"]
    assert isinstance(namespaces, dict)
    names = {*_shipped("roles"), *namespaces}
    assert {"mcp:admin", "production"} <= names

    found = {
        (str(path.relative_to(ROOT)), name)
        for path in (ROOT / "mcp_server").rglob("*.py")
        for name in _named(path.read_text(), names)
    }

    assert found == ALLOWED


@pytest.mark.parametrize(
    ("source", "named"),
    [
        ('if "mcp:admin" in subject.roles: pass', {"mcp:admin"}),
        ('open = namespace in ("production", "x")', {"production"}),
        ('match namespace:\n    case "production": pass', {"production"}),
        ('x = f"{tenant}/production"', {"production"}),
        ('x = b"mcp:admin"', {"mcp:admin"}),
        ('def f():\n    """Not in production."""', set()),
        ("# not in production\nproduction = 1", set()),
        ('x = "reproduction of mcp:administrators"', set()),
    ],
)
def test_a_name_is_found_wherever_code_could_compare_it(source: str, named: set[str]) -> None:
    assert _named(source, ["mcp:admin", "production"]) == named
