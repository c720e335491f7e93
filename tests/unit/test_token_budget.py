"""What `tools/list` costs a model's context, counted with the tokenizer o200k_base."""

from __future__ import annotations

import json
from typing import Any

import pytest
from rs_bpe.bpe import openai

from mcp_server.catalog_document import every_tool
from mcp_server.tools.catalog import Tool
from mcp_server.transports.mcp import declaration

BUDGET = 3_500
"""Issue 4: the whole list of an administrator, to whom every tool is visible, stays below this."""

TOKENIZER = openai.o200k_base()


def tokens(tool: Tool[Any, Any]) -> int:
    wire = declaration(tool).model_dump(mode="json", by_alias=True, exclude_none=True)
    return int(TOKENIZER.count(json.dumps(wire, separators=(",", ":"), ensure_ascii=False)))


def test_the_whole_list_of_tools_fits_the_budget(capsys: pytest.CaptureFixture[str]) -> None:
    costs = {tool.wire_name: tokens(tool) for tool in every_tool()}
    total = sum(costs.values())

    with capsys.disabled():
        print(f"\ntools/list: {total} tokens for {len(costs)} tools, budget {BUDGET}")
        for name, cost in sorted(costs.items(), key=lambda item: -item[1]):
            print(f"  {cost:5} {name}")
    assert total < BUDGET
