"""Records of an import, and their validation before anything is written."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mcp_server.tools.cmdb.model import Address, AssetStatus, AssetType, Environment, Moment

__all__ = [
    "DEFAULT_TENANT",
    "CmdbImport",
    "ImportedAsset",
    "ImportedRelation",
    "InvalidImport",
    "PlacedRelation",
    "Record",
    "RecordsRead",
    "check_records",
]

DEFAULT_TENANT = "default"
"""Tenant of records without a tenant, if the import names none either."""


class InvalidImport(ValueError):
    """The files cannot be imported; the message lists every fault. Nothing was written."""

    def __init__(self, faults: Sequence[str]) -> None:
        self.faults = tuple(faults)
        super().__init__("\n".join(self.faults))


class _Imported(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    tenant: str = Field(min_length=1, max_length=128)


class ImportedAsset(_Imported):
    """One asset of an import.

    A field that is not given (`model_fields_set`) keeps its value if the asset exists, and gets its
    default if it does not. `last_updated` defaults to the time of the import.
    """

    id: str = Field(min_length=1, max_length=256)
    name: str = Field(min_length=1, max_length=256)
    type: AssetType
    environment: Environment
    status: AssetStatus = AssetStatus.ACTIVE
    ip_address: Address | None = None
    owner: str | None = Field(default=None, max_length=256)
    last_updated: Moment | None = None
    attributes: dict[str, Any] = Field(default_factory=dict)


class ImportedRelation(_Imported):
    """One relation of an import: `origin` depends on `target`; `from` and `to` in files."""

    origin: str = Field(alias="from", min_length=1, max_length=256)
    target: str = Field(alias="to", min_length=1, max_length=256)
    type: str = Field(min_length=1, max_length=128)


@dataclass(frozen=True)
class Record:
    """One asset or relation as read; `place` is the file and the line or record, for the user."""

    place: str
    values: object


@dataclass(frozen=True)
class RecordsRead:
    """The records of a file, and the faults found while reading it."""

    assets: tuple[Record, ...] = ()
    relations: tuple[Record, ...] = ()
    faults: tuple[str, ...] = ()


@dataclass(frozen=True)
class PlacedRelation:
    """A relation and its place in a file."""

    place: str
    relation: ImportedRelation


@dataclass(frozen=True)
class CmdbImport:
    """The validated assets and relations, without duplicates."""

    assets: tuple[ImportedAsset, ...]
    relations: tuple[PlacedRelation, ...] = ()


_ImportedT = TypeVar("_ImportedT", bound=_Imported)


def check_records(read: Iterable[RecordsRead], *, tenant: str | None = None) -> CmdbImport:
    """Validate all records of all files.

    Args:
        read: the records, and the faults found while reading them.
        tenant: tenant of all records; a record that names another tenant is a fault. None: each
            record's own tenant, or the default tenant.

    Raises:
        InvalidImport: the message has a line for each fault: place, id, field and reason.
    """
    files = tuple(read)
    faults = [fault for file in files for fault in file.faults]
    assets: list[ImportedAsset] = []
    relations: list[PlacedRelation] = []
    seen: dict[tuple[str, ...], str] = {}
    for record in (record for file in files for record in file.assets):
        asset = _checked(ImportedAsset, record, tenant, faults)
        if asset is None:
            continue
        earlier = seen.setdefault((asset.tenant, asset.id), record.place)
        if earlier != record.place:
            faults.append(f"{_label(record)}: id: the same as in {earlier}")
        assets.append(asset)
    for record in (record for file in files for record in file.relations):
        relation = _checked(ImportedRelation, record, tenant, faults)
        if relation is None:
            continue
        if relation.origin == relation.target:
            faults.append(f"{_label(record)}: to: an asset does not depend on itself")
        key = (relation.tenant, relation.origin, relation.target, relation.type)
        earlier = seen.setdefault(key, record.place)
        if earlier != record.place:
            faults.append(f"{_label(record)}: the same relation as in {earlier}")
        relations.append(PlacedRelation(record.place, relation))
    if faults:
        raise InvalidImport(faults)
    return CmdbImport(tuple(assets), tuple(relations))


def _checked(
    model: type[_ImportedT], record: Record, tenant: str | None, faults: list[str]
) -> _ImportedT | None:
    """Return the record as `model`, or None when it has faults, which are added to `faults`."""
    label, values = _label(record), record.values
    if isinstance(values, Mapping):
        given = values.get("tenant")
        if tenant is not None and given is not None and given != tenant:
            faults.append(
                f"{label}: tenant: {given!r} is not the tenant of this import, {tenant!r}"
            )
        values = {**values, "tenant": (tenant or DEFAULT_TENANT) if given is None else given}
    try:
        checked = model.model_validate(values)
    except ValidationError as error:
        faults += [f"{label}: {_fault(fault, model)}" for fault in error.errors()]
        return None
    unstorable = _unstorable(checked)
    faults += [f"{label}: {text}" for text in unstorable]
    return None if unstorable else checked


def _label(record: Record) -> str:
    values = record.values
    if not isinstance(values, Mapping):
        return record.place
    if isinstance(values.get("id"), str):
        return f"{record.place} ({values['id']!r})"
    if "from" in values or "to" in values:
        return f"{record.place} ({values.get('from')!r} to {values.get('to')!r})"
    return record.place


def _fault(fault: Any, model: type[_Imported]) -> str:
    where = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        names = [field.alias or name for name, field in model.model_fields.items()]
        return f"{where}: unknown field; known are {', '.join(sorted(names))}"
    return f"{where}: {fault['msg']}" if where else f"{fault['msg']}"


def _unstorable(checked: _Imported) -> list[str]:
    """Return the names of fields with values that PostgreSQL cannot store."""
    faults = []
    for name, field in type(checked).model_fields.items():
        value = getattr(checked, name)
        if not isinstance(value, str | dict):
            continue
        try:
            text = json.dumps(value, ensure_ascii=False, allow_nan=False)
            text.encode()
            if _has_nul(value):
                faults.append(f"{field.alias or name}: NUL characters cannot be stored")
        except (TypeError, ValueError):
            faults.append(f"{field.alias or name}: holds what JSON or UTF-8 cannot express")
    return faults


def _has_nul(value: object) -> bool:
    match value:
        case str():
            return "\0" in value
        case dict():
            return any(_has_nul(part) for pair in value.items() for part in pair)
        case list():
            return any(_has_nul(part) for part in value)
        case _:
            return False
