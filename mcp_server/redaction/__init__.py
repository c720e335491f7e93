"""Redaction of results, logs and audit rows: two independent rules over one walk (`walker`).

Secrets are found by their shape in text (`patterns`, `text`) and by the name of their key (`names`).
They are removed everywhere and always: from results (`results`) and from arguments (`arguments`).

Fields are masked because the policy says so, for one caller (`masking`).
"""

from mcp_server.redaction.arguments import (
    ARGUMENTS_LIMIT,
    CUT_KEY,
    NO_ARGUMENTS,
    RedactedArguments,
    redact_arguments,
    without_secrets,
)
from mcp_server.redaction.masking import mask_fields, mask_text
from mcp_server.redaction.names import is_secret_key, redact_labels
from mcp_server.redaction.results import redact_json
from mcp_server.redaction.text import MASK, REDACTED, LineRedactor, redact_text

__all__ = [
    "ARGUMENTS_LIMIT",
    "CUT_KEY",
    "MASK",
    "NO_ARGUMENTS",
    "REDACTED",
    "LineRedactor",
    "RedactedArguments",
    "is_secret_key",
    "mask_fields",
    "mask_text",
    "redact_arguments",
    "redact_json",
    "redact_labels",
    "redact_text",
    "without_secrets",
]
