"""Redaction of results, logs and audit rows.

Two independent rules: `secrets` removes what looks like a secret, everywhere and always; `masking`
removes the fields that the policy names for one caller.
"""

from mcp_server.redaction.secrets import (
    ARGUMENTS_LIMIT,
    CUT_KEY,
    MASK,
    NO_ARGUMENTS,
    REDACTED,
    LineRedactor,
    RedactedArguments,
    is_secret_key,
    redact_arguments,
    redact_labels,
    redact_shapes,
    redact_text,
    without_secrets,
)

__all__ = [
    "ARGUMENTS_LIMIT",
    "CUT_KEY",
    "MASK",
    "NO_ARGUMENTS",
    "REDACTED",
    "LineRedactor",
    "RedactedArguments",
    "is_secret_key",
    "redact_arguments",
    "redact_labels",
    "redact_shapes",
    "redact_text",
    "without_secrets",
]
