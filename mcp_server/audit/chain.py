"""Hash chains over the rows of the audit log.

The hash of a row is SHA-256 over the hash of the row before it and the row's canonical form. Whoever
changes, removes, inserts or reorders rows of a chain has to write all later hashes again, and then the
chain no longer leads to its signed heads (`mcp_server.audit.heads`).

A process has one chain for each day (UTC) of its rows, so that a partition has whole chains and can be
dropped as a whole. After a commit whose result is unknown, a new chain begins.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Context, Decimal
from functools import lru_cache
from typing import Any

from mcp_server.audit.record import COLUMNS

__all__ = ["CHAIN_COLUMNS", "FIRST", "Chain", "Chains", "row_hash"]

CHAIN_COLUMNS = {"chain": "uuid", "seq": "bigint", "hash": "bytea"}
"""The columns of audit.events that link a row, and their types."""
FIRST = bytes(32)
"""The hash before the first row of a chain."""

_ANY_PRECISION = Context(prec=10_000)


def row_hash(previous: bytes, chain: uuid.UUID, seq: int, values: Sequence[Any]) -> bytes:
    """Return the hash of a row.

    The canonical form has a line `NAME LENGTH VALUE` for `chain`, `seq` and each of `COLUMNS` that is
    not null, in this order; LENGTH counts the characters of VALUE. A column that a later release adds is
    null in older rows and leaves their hashes as they are.

    Args:
        previous: the hash of the row before, or `FIRST`.
        values: of `COLUMNS`, as they are written or as they are read.
    """
    lines = [f"chain 32 {chain.hex}\nseq {len(str(seq))} {seq}\n"]
    for (name, text_of), value in zip(_COLUMNS, values, strict=True):
        if value is not None:
            text = value if text_of is None else text_of(value)
            lines.append(f"{name} {len(text)} {text}\n")
    return hashlib.sha256(previous + "".join(lines).encode()).digest()


@dataclass(slots=True)
class Chain:
    """One chain, up to its last committed row.

    Attributes:
        day: the day (UTC) of all its rows.
        seq: the number of rows.
        hash: the hash of the last one.
        signed: the number of rows when its head was last signed; -1: never.
    """

    id: uuid.UUID
    day: date
    seq: int = 0
    hash: bytes = FIRST
    signed: int = -1


class Chains:
    """The chains of one writer, at most one for each day."""

    def __init__(self) -> None:
        self._of_day: dict[date, Chain] = {}

    def __iter__(self) -> Iterator[Chain]:
        return iter(list(self._of_day.values()))

    def of(self, time: datetime) -> Chain:
        """Return the chain for a row with this time."""
        day = time.astimezone(UTC).date()
        chain = self._of_day.get(day)
        if chain is None:
            chain = self._of_day[day] = Chain(uuid.uuid4(), day)
        return chain

    def link(
        self, rows: Sequence[tuple[Any, ...]]
    ) -> tuple[list[tuple[Any, ...]], list[tuple[Chain, int, bytes]]]:
        """Return each row with the values of `CHAIN_COLUMNS` appended, and the new ends of the chains.

        The chains do not change until `advance` is called with these ends, because uncommitted rows
        belong to no chain.

        Args:
            rows: the values of `COLUMNS`.
        """
        ends: dict[uuid.UUID, tuple[Chain, int, bytes]] = {}
        linked = []
        for row in rows:
            chain = self.of(row[0])
            _, seq, last = ends.get(chain.id, (chain, chain.seq, chain.hash))
            seq += 1
            last = row_hash(last, chain.id, seq, row)
            ends[chain.id] = (chain, seq, last)
            linked.append((*row, chain.id, seq, last))
        return linked, list(ends.values())

    @staticmethod
    def advance(ends: Iterable[tuple[Chain, int, bytes]]) -> None:
        """Keep the ends that `link` returned: the rows are committed."""
        for chain, seq, last in ends:
            chain.seq, chain.hash = seq, last

    def forget(self, chain: Chain) -> None:
        """Begin a new chain with the next row of this chain's day."""
        self._of_day.pop(chain.day, None)


def _number(text: str) -> str:
    # jsonb keeps a number's value and not its text: 1e2 is read back as 100. The NUL, which no text of
    # jsonb contains, tells a number from a text.
    value = Decimal(text)
    return f"\0{_ANY_PRECISION.normalize(value) if value else 0}"


_decode = json.JSONDecoder(parse_float=_number, parse_int=_number).decode
_encode = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":")).encode


def _json(text: str) -> str:
    """Return the canonical form of a JSON text.

    It is the same before jsonb stores the text and after jsonb returns it.
    """
    if text in ("{}", "[]"):
        return text
    return _known_json(text) if len(text) < _SHORT else _encode(_decode(text))


_SHORT = 200


@lru_cache(maxsize=1024)
def _known_json(text: str) -> str:
    return _encode(_decode(text))


def _time(value: datetime) -> str:
    utc = value if value.tzinfo is UTC else value.astimezone(UTC)
    return utc.isoformat(timespec="microseconds")


_TEXT: dict[str, Callable[[Any], str] | None] = {
    "timestamptz": _time,
    "uuid": str,
    "text": None,
    "jsonb": _json,
    "inet": str,
    "double precision": repr,
    "bigint": str,
    "bytea": bytes.hex,
}
_COLUMNS = [(name, _TEXT[kind]) for name, kind in COLUMNS.items()]
