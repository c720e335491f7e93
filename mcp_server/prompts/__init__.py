"""Prompts: procedures that an operator starts by name, made of the configured tools.

- `declaration`: what a prompt is.
- `library`: the prompts of this server.
- `engine`: serves them.
"""

from mcp_server.prompts.declaration import FromTemplate, FromTool, Prompt, PromptArguments, Step
from mcp_server.prompts.engine import Prompts, Rendered
from mcp_server.prompts.library import PROMPTS

__all__ = [
    "PROMPTS",
    "FromTemplate",
    "FromTool",
    "Prompt",
    "PromptArguments",
    "Prompts",
    "Rendered",
    "Step",
]
