"""Signed heads: the length and the last hash of a chain at one time, stored outside of the database.

A head is one line of JSON in a file of the node and in its log, signed with the node's key (Ed25519, RFC
8032). It is written before the first row of a chain, every minute while the chain grows, and at its end.
Whoever can rewrite the database cannot sign other heads.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from mcp_server.audit.chain import Chain
from mcp_server.infrastructure import telemetry
from mcp_server.settings import AuditSettings, SettingsError

__all__ = ["Head", "HeadWriter", "InvalidHead", "public_key_of", "read_heads", "read_public_key"]

_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":")).encode


class InvalidHead(Exception):
    """The line is not a head, or none of the given keys signed it."""


@dataclass(frozen=True, slots=True)
class Head:
    """The end of a chain at a time.

    Attributes:
        day: the day of the chain's rows, as YYYY-MM-DD.
        seq: the number of rows; 0: none is written yet.
        hash: the hash of the last row in hexadecimal digits.
        final: whether the chain has ended, so that no row follows.
    """

    node: str
    chain: uuid.UUID
    day: str
    seq: int
    hash: str
    time: datetime
    final: bool

    def document(self) -> dict[str, Any]:
        """Return the fields of the head.

        The signature covers their JSON text with sorted keys and without spaces.
        """
        return {
            "version": 1,
            "node": self.node,
            "chain": str(self.chain),
            "day": self.day,
            "seq": self.seq,
            "hash": self.hash,
            "time": self.time.isoformat(timespec="milliseconds"),
            "final": self.final,
        }


class HeadWriter:
    """Signs the heads of this process and writes them.

    A file has the heads of one day's chains by one account: `20261130-998.jsonl`.

    Args:
        settings: key and directory.
        node: this node's name.

    Raises:
        SettingsError: the key cannot be used, or the directory cannot be made.
    """

    def __init__(self, settings: AuditSettings, node: str) -> None:
        if settings.signing_key is None or settings.heads is None:
            raise SettingsError("audit.signing_key and audit.heads belong together")
        self._node = node
        self._directory = settings.heads
        self._key = _private_key(settings.signing_key.reveal())
        self._key_id = _key_id(self._key.public_key())
        # Create the series at 0. A series that began with the first failure would show no rate for it.
        telemetry.AUDIT_HEADS.labels("failed")
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise SettingsError(f"audit.heads: cannot make {self._directory}: {error}") from None

    def write(self, chain: Chain, *, final: bool = False) -> None:
        """Write the head of a chain. A failure is logged and counted: rows are written nevertheless."""
        head = Head(
            node=self._node,
            chain=chain.id,
            day=chain.day.isoformat(),
            seq=chain.seq,
            hash=chain.hash.hex(),
            time=datetime.now(UTC),
            final=final,
        ).document()
        signature = base64.b64encode(self._key.sign(_encode(head).encode())).decode()
        line = _encode({**head, "key": self._key_id, "signature": signature})
        telemetry.log.info("audit_head", head=line)
        try:
            file = self._directory / f"{chain.day:%Y%m%d}-{os.getuid()}.jsonl"
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            try:
                os.write(descriptor, line.encode() + b"\n")
            finally:
                os.close(descriptor)
        except OSError as error:
            telemetry.AUDIT_HEADS.labels("failed").inc()
            telemetry.log.error("audit_head_not_written", error=str(error))
            return
        telemetry.AUDIT_HEADS.labels("written").inc()
        chain.signed = chain.seq


def read_heads(
    directories: Iterable[Path], keys: Iterable[Ed25519PublicKey]
) -> Iterator[Head | InvalidHead]:
    """Yield the head of each line in the directories' files.

    A line that is not a head yields an `InvalidHead`.

    Raises:
        OSError: a directory or a file cannot be read.
    """
    known = {_key_id(key): key for key in keys}
    for directory in directories:
        for file in sorted(directory.iterdir()):
            if file.suffix != ".jsonl":
                continue
            with file.open(encoding="utf-8") as lines:
                for number, line in enumerate(lines, start=1):
                    try:
                        yield _head(line, known)
                    except InvalidHead as error:
                        yield InvalidHead(f"{file}:{number}: {error}")


def read_public_key(pem: bytes) -> Ed25519PublicKey:
    """Return a public key from its PEM text.

    Raises:
        ValueError: it is no Ed25519 key.
    """
    key = load_pem_public_key(pem)
    if not isinstance(key, Ed25519PublicKey):
        raise ValueError("it is no Ed25519 key")
    return key


def public_key_of(private: str) -> Ed25519PublicKey:
    """Return the public key that belongs to a private key (PEM).

    Raises:
        SettingsError: it is no Ed25519 key.
    """
    return _private_key(private).public_key()


def _private_key(pem: str) -> Ed25519PrivateKey:
    try:
        key = load_pem_private_key(pem.encode(), password=None)
    except (ValueError, TypeError) as error:
        raise SettingsError(f"audit.signing_key holds no private key (PEM): {error}") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise SettingsError(
            "audit.signing_key is no Ed25519 key; `openssl genpkey -algorithm ed25519` makes one"
        )
    return key


def _key_id(key: Ed25519PublicKey) -> str:
    raw = key.public_bytes(Encoding.Raw, PublicFormat.Raw)
    return hashlib.sha256(raw).hexdigest()[:16]


def _head(line: str, keys: Mapping[str, Ed25519PublicKey]) -> Head:
    try:
        document = json.loads(line)
        key, signature = keys.get(document.pop("key")), document.pop("signature")
        if document["version"] != 1:
            raise InvalidHead(f"is a head of version {document['version']}, which is not known")
        if key is None:
            raise InvalidHead("is signed with a key that was not given")
        key.verify(base64.b64decode(signature), _encode(document).encode())
        return Head(
            node=document["node"],
            chain=uuid.UUID(document["chain"]),
            day=document["day"],
            seq=document["seq"],
            hash=document["hash"],
            time=datetime.fromisoformat(document["time"]),
            final=document["final"],
        )
    except InvalidSignature:
        raise InvalidHead("has a wrong signature") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidHead(f"is no head: {error}") from None
