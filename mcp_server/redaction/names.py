"""Secrets by name: which keys of objects, and which labels, name a secret."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from mcp_server.redaction.text import REDACTED

__all__ = ["holds_secret", "is_secret_key", "redact_labels"]

_LONGEST_KEY = 1024
_NOT_ALPHANUMERIC = re.compile(r"[\W_]+")
# A key is secret when its letters and digits contain one of these ...
_SECRET_PARTS = (
    "password",
    "passwd",
    "passphrase",
    "passcode",
    "secret",
    "token",
    "apikey",
    "accesskey",
    "privatekey",
    "signingkey",
    "encryptionkey",
    "authorization",
    "credential",
    "cookie",
    "bearer",
    "kubeconfig",
)
# ... or are one of these, which as parts of words would hit too much.
_SECRET_WORDS = frozenset({"auth", "jwt", "otp", "pass", "pin", "pwd", "apitoken", "sig"})

# A label that ends in one of these describes a secret, and does not hold it.
_ABOUT_A_SECRET = (
    *("name", "namespace", "type", "kind", "class", "version", "status", "reason", "issuer"),
    *("provider", "store", "file", "path", "ttl", "expiry", "count", "total"),
)
# Names of objects and keys within a Secret that Kubernetes accepts.
_OBJECT_NAME = re.compile(r"(?=[^a-z]*[a-z])[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?", re.ASCII)
_DATA_KEY = re.compile(r"[\w.-]{1,253}", re.ASCII)
# Such names consist of words; credentials have runs of letters and digits like this.
_RANDOM_RUN = re.compile(r"(?=[A-Za-z]*[0-9])(?=[0-9]*[A-Za-z])[A-Za-z0-9]{20}", re.ASCII)

_KEY_VALUE_NAMES = ("name", "key")


def is_secret_key(key: str) -> bool:
    """Tell whether a key names a secret, in any case and with any separators (`API-Key`, `dbPassword`).

    A key that is too long for a name counts as one, without being searched.
    """
    if len(key) > _LONGEST_KEY:
        return True
    letters = _NOT_ALPHANUMERIC.sub("", key).casefold()
    return letters in _SECRET_WORDS or any(part in letters for part in _SECRET_PARTS)


def holds_secret(mapping: Mapping[Any, Any], key: Any) -> bool:
    """Tell whether the value of `key` is a secret: by this key, or by the name in the same object."""
    name = str(key)
    return is_secret_key(name) or (
        name.casefold() == "value"
        and any(
            isinstance(mapping.get(name_key), str) and is_secret_key(mapping[name_key])
            for name_key in _KEY_VALUE_NAMES
        )
    )


def redact_labels(labels: Mapping[str, Any]) -> dict[str, Any]:
    """Return labels with the values replaced whose keys name a secret.

    Labels that describe a secret stay: `secret_name`, `token_type`. So do the names of Secrets in time
    series of Kubernetes: `secret` beside `namespace`, and `secret_key` beside `secret_name`.
    """
    return {
        key: REDACTED if isinstance(text, str) and _is_secret_label(key, text, labels) else text
        for key, text in labels.items()
    }


def _is_secret_label(key: str, value: str, labels: Mapping[str, Any]) -> bool:
    if not is_secret_key(key) or _NOT_ALPHANUMERIC.sub("", key).casefold().endswith(
        _ABOUT_A_SECRET
    ):
        return False
    names_an_object = (
        key == "secret" and "namespace" in labels and _OBJECT_NAME.fullmatch(value)
    ) or (key == "secret_key" and "secret_name" in labels and _DATA_KEY.fullmatch(value))
    return not names_an_object or _RANDOM_RUN.search(value) is not None
