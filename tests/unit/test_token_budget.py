"""What `tools/list` costs a model's context, counted with the tokenizer o200k_base."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from mcp_types import SERVER_INFO_META_KEY
from rs_bpe.bpe import openai

from mcp_server import __version__
from mcp_server.cli.generate.policy_catalog import every_tool
from mcp_server.transports.declarations import tool_declaration

BUDGET = 3_500
"""Issue 4: the whole list of an administrator, to whom every tool is visible, stays below this."""

TOKENIZER = openai.o200k_base()


def tokens(value: object) -> int:
    return int(TOKENIZER.count(json.dumps(value, separators=(",", ":"), ensure_ascii=False)))


def answer(tools: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the JSON-RPC answer of the 2026-07-28 era, which says more than the one before."""
    server = {"name": "enterprise-mcp", "title": "Enterprise MCP", "version": __version__}
    listed = {
        "_meta": {SERVER_INFO_META_KEY: server},
        "cacheScope": "private",
        "resultType": "complete",
        "tools": tools,
        "ttlMs": 60_000,
    }
    return {"jsonrpc": "2.0", "id": 1, "result": listed}


def test_the_whole_list_of_tools_fits_the_budget(
    capsys: pytest.CaptureFixture[str], record_property: Callable[[str, object], None]
) -> None:
    tools = [
        tool_declaration(tool).model_dump(mode="json", by_alias=True, exclude_none=True)
        for tool in every_tool()
    ]
    total = tokens(answer(tools))

    # The end of `make test` repeats it.
    record_property("tools/list for an administrator", f"{total} tokens, budget {BUDGET}")
    with capsys.disabled():
        print(f"\ntools/list: {total} tokens for {len(tools)} tools, budget {BUDGET}")
        for tool in sorted(tools, key=tokens, reverse=True):
            print(f"  {tokens(tool):5} {tool['name']}")
    assert total < BUDGET
