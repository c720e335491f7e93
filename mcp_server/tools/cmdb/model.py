"""What the CMDB knows: assets, and how to ask for them."""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

from pydantic import BaseModel, ConfigDict, Field, IPvAnyAddress

__all__ = ["Asset", "AssetPage", "AssetQuery", "AssetStatus", "AssetType", "Environment"]


class AssetType(StrEnum):
    """What an asset is."""

    SERVER = "server"
    DATABASE = "database"
    APPLICATION = "application"


class Environment(StrEnum):
    """What an asset is used for."""

    PROD = "prod"
    STAGING = "staging"
    DEV = "dev"


class AssetStatus(StrEnum):
    """Whether an asset is in use."""

    ACTIVE = "active"
    INACTIVE = "inactive"
    MAINTENANCE = "maintenance"


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Asset(_Model):
    """One configuration item."""

    id: str = Field(description="Identifier, unique within the tenant")
    name: str = Field(description="Name, such as a host name")
    type: AssetType
    environment: Environment
    status: AssetStatus
    ip_address: IPvAnyAddress | None = Field(default=None, description="Address, where it has one")
    owner: str | None = Field(default=None, description="Team or person answerable for it")
    last_updated: datetime = Field(description="When the record last changed")


class AssetQuery(_Model):
    """Which assets are asked for; what is None does not narrow the search."""

    asset_type: AssetType | None = None
    environment: Environment | None = None
    status: AssetStatus | None = None


class AssetPage(_Model):
    """One page of the assets that match, in the order of their ids."""

    items: tuple[Asset, ...]
    total: int = Field(description="How many match in all")
    next_cursor: str | None = Field(default=None, description="Asks for the next page; null: none")
