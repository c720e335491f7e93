"""Data of the CMDB: assets, their relations and the history of their changes."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address
from typing import Annotated, Any

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    IPvAnyAddress,
)
from pydantic_core import PydanticCustomError

__all__ = [
    "Address",
    "Asset",
    "AssetPage",
    "AssetQuery",
    "AssetStatus",
    "AssetType",
    "ChangePage",
    "ChangeRecord",
    "Direction",
    "Edge",
    "Environment",
    "Moment",
    "Node",
    "StatusChange",
    "StatusChanged",
    "Topology",
]


def _is_address(value: object) -> object:
    # The number true would be parsed as 0.0.0.1. A zone is local to one host, and the type inet of
    # PostgreSQL has none.
    if isinstance(value, IPv4Address | IPv6Address) or (
        isinstance(value, str) and "%" not in value
    ):
        return value
    raise PydanticCustomError(
        "address", 'must be text with an IPv4 or IPv6 address and no zone, such as "192.0.2.10"'
    )


def _moment(value: object) -> datetime:
    # A number, also as text, would be parsed as Unix seconds.
    if isinstance(value, datetime):
        return value
    if isinstance(value, str):
        with suppress(ValueError):
            return datetime.fromisoformat(value.upper())
    raise PydanticCustomError(
        "moment", 'must be text with an RFC 3339 time, such as "2026-01-31T12:00:00Z"'
    )


Address = Annotated[IPvAnyAddress, BeforeValidator(_is_address)]
"""An IP address; JSON contains it as text."""
Moment = Annotated[AwareDatetime, BeforeValidator(_moment)]
"""A time with an offset; JSON contains it as text in RFC 3339 format."""


class AssetType(StrEnum):
    """Type of an asset."""

    SERVER = "server"
    DATABASE = "database"
    APPLICATION = "application"


class Environment(StrEnum):
    """Environment that an asset belongs to."""

    PROD = "prod"
    STAGING = "staging"
    DEV = "dev"


class AssetStatus(StrEnum):
    """Whether an asset is in use."""

    ACTIVE = "active"
    INACTIVE = "inactive"
    MAINTENANCE = "maintenance"


class Direction(StrEnum):
    """Direction in which relations are followed."""

    DOWN = "down"
    """From an asset to its dependencies."""
    UP = "up"
    """From an asset to its dependents."""
    BOTH = "both"
    """Both directions from the service; a path never changes its direction."""


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _Answer(BaseModel):
    """Base class of data from a CMDB; a CMDB may send additional fields.

    Results of tools contain these models, so their schema describes what this server sends.
    """

    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        json_schema_serialization_defaults_required=True,
        json_schema_extra={"additionalProperties": False},
    )


class Asset(_Answer):
    """One configuration item."""

    id: str = Field(
        min_length=1, max_length=256, description="Identifier, unique within the tenant"
    )
    name: str = Field(description="Name, such as a host name")
    type: AssetType
    environment: Environment
    status: AssetStatus
    ip_address: Address | None = Field(default=None, description="Address, where it has one")
    owner: str | None = Field(default=None, description="Team or person answerable for it")
    last_updated: Moment = Field(description="When the record last changed")
    version: int = Field(ge=1, description="Grows with every change of the record")


class AssetQuery(_Model):
    """Filters of an asset search; None: the search ignores the field."""

    asset_type: AssetType | None = None
    environment: Environment | None = None
    status: AssetStatus | None = None
    name_prefix: str | None = None
    owner: str | None = None
    id_prefix: str | None = None


class AssetPage(_Answer):
    """One page of matching assets, sorted by id."""

    items: tuple[Asset, ...]
    total: int = Field(ge=0, description="How many match in all")
    more: bool = Field(description="Whether assets follow after the last one of this page")


class Node(_Answer):
    """One asset of a topology."""

    id: str
    name: str
    type: AssetType
    status: AssetStatus
    depth: int = Field(ge=0, description="Relations between it and the service")


class Edge(_Answer):
    """One relation: `origin` depends on `target`; `from` and `to` in JSON."""

    model_config = ConfigDict(serialize_by_alias=True)

    origin: str = Field(alias="from")
    target: str = Field(alias="to")
    type: str = Field(description="How, such as runs_on or depends_on")


class Topology(_Answer):
    """The assets around a service, nearest first, and all relations between them."""

    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    total: int | None = Field(ge=0, description="How many assets in all; None: too many to count")


class StatusChange(_Model):
    """A new status, its author and reason, and the expected state of the asset."""

    status: AssetStatus
    reason: str
    user: str
    request_id: str = Field(description="Joins the change record with the audit log")
    expected_version: int | None = None
    expected_status: AssetStatus | None = None


class StatusChanged(_Answer):
    """Result of a change of status."""

    before: Asset
    after: Asset
    change_id: int | None = Field(description="None: the asset had the status, nothing was written")


class ChangeRecord(_Answer):
    """One entry of an asset's history."""

    id: int = Field(ge=1, description="Grows with time within one asset")
    time: Moment
    user: str
    reason: str
    request_id: str
    before: dict[str, Any] | None = Field(description="The record before; None: it was created")
    after: dict[str, Any] | None = Field(description="The record after; None: it was removed")


class ChangePage(_Answer):
    """One page of an asset's history, newest record first."""

    items: tuple[ChangeRecord, ...]
    total: int = Field(ge=0, description="How many records since the time asked for")
    more: bool = Field(description="Whether older records follow")
