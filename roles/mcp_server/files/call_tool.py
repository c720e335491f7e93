"""Calls one tool through `mcpctl stdio`: the release, settings, policy and stores of a node.

Usage: python call_tool.py MCPCTL CONFIG, with {"token": …, "tool": …, "arguments": {…}} on standard
input, so that the token is in no list of processes. Prints what the tool answered. Otherwise the reason
stands on standard error, and the status is 75 where a limit was used up, for everything else 1.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import sys
import tempfile
from typing import Any

from mcp import Client, MCPError
from mcp.client.stdio import StdioServerParameters

# Maximum seconds for the start of the process and the call. On a host with other work the start alone
# takes half a minute.
_DEADLINE_S = 120
# The code of a refusal by a limit (mcp_server/transports/mcp.py).
_RATE_LIMITED = -32011


async def call(mcpctl: str, config: str, asked: dict[str, Any]) -> str:
    """Return the text of the answer; raise MCPError for a refusal."""
    with tempfile.NamedTemporaryFile("w", prefix="mcp-token-") as token:
        token.write(asked["token"])
        token.flush()
        server = StdioServerParameters(
            command=mcpctl, args=["stdio", "--config", config, "--token-file", token.name]
        )
        async with asyncio.timeout(_DEADLINE_S), Client(server) as client:
            result = await client.call_tool(asked["tool"], asked["arguments"])
    text = "\n".join(getattr(part, "text", "") for part in result.content)
    if result.is_error:
        sys.exit(f"{asked['tool']} failed: {text}")
    return text


def cause(error: BaseException) -> BaseException:
    """Return the error itself, or the first of a group."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def limit(error: BaseException) -> str:
    """Return the limit that was used up and its retry time, or an empty text for another error."""
    if not isinstance(error, MCPError) or error.error.code != _RATE_LIMITED:
        return ""
    seconds = math.ceil(error.error.data["retry_after_ms"] / 1000)
    return f"{error.error.message}, for another {seconds} s"


def refusal(error: BaseException) -> str:
    """Return the message of a refusal with its reasons and solutions."""
    if not isinstance(error, MCPError):
        return f"{type(error).__name__}: {error}"
    data = error.error.data if isinstance(error.error.data, dict) else {}
    reasons = [f"{each.get('code')} ({each.get('solution')})" for each in data.get("reasons", [])]
    return "; ".join([error.error.message, *reasons])


def main() -> None:
    """Call the tool that standard input names."""
    mcpctl, config = sys.argv[1:]
    asked = json.load(sys.stdin)
    try:
        print(asyncio.run(call(mcpctl, config, asked)))
    except TimeoutError:
        sys.exit(f"{asked['tool']} gave no answer within {_DEADLINE_S} s")
    except (MCPError, OSError, BaseExceptionGroup) as error:
        if used_up := limit(cause(error)):
            sys.stderr.write(f"{used_up}\n")
            sys.exit(os.EX_TEMPFAIL)
        sys.exit(f"{asked['tool']} was refused: {refusal(cause(error))}")


if __name__ == "__main__":
    main()
