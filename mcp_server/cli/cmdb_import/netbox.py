"""Devices and virtual machines in the JSON of NetBox's REST API.

NetBox fields without a counterpart in this CMDB are kept in the attribute `netbox`. A NetBox tenant is
never used as a tenant of this server, because a tenant decides who may see an asset: the user who
imports the file names the tenant.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from mcp_server.cli.cmdb_import.json_format import parse_json
from mcp_server.cli.cmdb_import.records import Record, RecordsRead
from mcp_server.tools.cmdb.model import AssetStatus, AssetType, Environment

__all__ = ["ENVIRONMENTS", "ROLE_TYPES", "STATUSES", "NetBoxRules", "read_netbox"]

STATUSES: Mapping[str, AssetStatus] = {
    "active": AssetStatus.ACTIVE,
    "planned": AssetStatus.INACTIVE,
    "staged": AssetStatus.INACTIVE,
    "offline": AssetStatus.INACTIVE,
    "inventory": AssetStatus.INACTIVE,
    "decommissioning": AssetStatus.INACTIVE,
    "paused": AssetStatus.INACTIVE,
    "failed": AssetStatus.MAINTENANCE,
}
"""Statuses of devices and virtual machines in NetBox, and the equivalents in this CMDB."""

ROLE_TYPES: Mapping[str, AssetType] = {
    "application": AssetType.APPLICATION,
    "app": AssetType.APPLICATION,
    "database": AssetType.DATABASE,
    "db": AssetType.DATABASE,
}
"""Types of assets by the slug of a NetBox role; devices with other roles are servers."""

ENVIRONMENTS: Mapping[str, Environment] = {
    "prod": Environment.PROD,
    "production": Environment.PROD,
    "staging": Environment.STAGING,
    "stage": Environment.STAGING,
    "dev": Environment.DEV,
    "development": Environment.DEV,
}
"""Names of environments in custom fields and tags."""

_TAG_PREFIXES = ("environment-", "env-")
_DEVICE, _VM = "device", "vm"
_LISTS = {"devices": _DEVICE, "virtual_machines": _VM}


@dataclass(frozen=True)
class NetBoxRules:
    """Values that a NetBox export does not contain.

    Attributes:
        environment: environment of records that have neither the custom field nor a tag; None: such a
            record is a fault.
        role_types: types by slug of a role, which take precedence over `ROLE_TYPES`.
    """

    environment: Environment | None = None
    role_types: Mapping[str, AssetType] = field(default_factory=dict)


def read_netbox(name: str, text: str, rules: NetBoxRules) -> RecordsRead:
    """Read devices and virtual machines, and the device that hosts each virtual machine.

    Accepted are a list, a response of the API (an object with `results`), or an object with `devices`
    and `virtual_machines`, each a list or a response of the API.

    Args:
        name: name of the file, for messages.
        text: content of the file.
        rules: values that the export does not contain.
    """
    faults: list[str] = []
    try:
        items = list(_items(name, parse_json(text)))
    except ValueError as error:
        return RecordsRead(faults=(f"{name}: {error}",))
    assets: list[Record] = []
    hosts: list[tuple[str, str, int]] = []
    ids: dict[int, str] = {}  # of devices
    for place, kind_given, item in items:
        try:
            kind = kind_given or _kind(item)
            asset = _asset(kind, item, rules)
            host = _host(item) if kind == _VM else None
        except ValueError as error:
            faults.append(f"{place}{_named(item)}: {error}")
            continue
        assets.append(Record(place, asset))
        if kind == _DEVICE:
            ids[item["id"]] = asset["id"]
        if host is not None:
            hosts.append((place, asset["id"], host))
    relations = [
        Record(
            place,
            {"from": vm, "to": ids.get(host, f"netbox-{_DEVICE}-{host}"), "type": "runs_on"},
        )
        for place, vm, host in hosts
    ]
    return RecordsRead(assets=tuple(assets), relations=tuple(relations), faults=tuple(faults))


def _items(name: str, document: Any) -> Iterator[tuple[str, str | None, Any]]:
    """Yield the place, the kind (None if unknown) and the content of each record.

    Raises:
        ValueError: the document has another structure.
    """
    if isinstance(document, dict) and document and set(document) <= set(_LISTS):
        for key, held in document.items():
            for number, item in enumerate(_results(held), start=1):
                yield f"{name} {key} {number}", _LISTS[key], item
        return
    for number, item in enumerate(_results(document), start=1):
        yield f"{name} record {number}", None, item


def _results(held: Any) -> list[Any]:
    if isinstance(held, dict) and isinstance(held.get("results"), list):
        if held.get("next"):
            count = held.get("count", "more")
            raise ValueError(
                f"one page of {len(held['results'])} records out of {count}, which is not the whole "
                "export; fetch it with limit=0 or join the pages' results in one list"
            )
        held = held["results"]
    if not isinstance(held, list):
        raise ValueError(
            "expected a list, an object with results, or one with devices and virtual_machines"
        )
    return held


def _kind(item: Any) -> str:
    if isinstance(item, dict):
        if "device_type" in item:
            return _DEVICE
        if "vcpus" in item or "/virtual-machines/" in str(item.get("url")):
            return _VM
    raise ValueError("neither a device (device_type) nor a virtual machine (vcpus)")


def _asset(kind: str, item: Any, rules: NetBoxRules) -> dict[str, Any]:
    if not isinstance(item, dict):
        raise ValueError(f"expected an object, not {type(item).__name__}")
    number = _number(item)
    custom = _given(item, "custom_fields", {})
    if not isinstance(custom, dict):
        raise ValueError("custom_fields: must be an object")
    role = _word(item, "role") or _word(item, "device_role")
    tenant = _word(item, "tenant")
    known = {
        "kind": kind,
        "id": number,
        "role": role,
        "site": _word(item, "site"),
        "cluster": _word(item, "cluster"),
        "platform": _word(item, "platform"),
        "tenant": tenant,
        "status": _word(item, "status"),
    }
    return {
        "id": _word(custom, "asset_id") or f"netbox-{kind}-{number}",
        "name": _given(item, "name", item.get("display")),
        "type": _type(custom, role, rules),
        "environment": _environment(item, custom, rules),
        "status": _status(item),
        "ip_address": _address(item),
        "owner": _word(custom, "owner") or tenant,
        "attributes": {"netbox": {key: value for key, value in known.items() if value is not None}},
    }


def _number(item: Mapping[str, Any]) -> int:
    number = item.get("id")
    if not isinstance(number, int) or isinstance(number, bool):
        raise ValueError("id: must be a number")
    return number


def _host(machine: Mapping[str, Any]) -> int | None:
    """Return the id of the device that hosts a virtual machine."""
    device = machine.get("device")
    if device is None:
        return None
    if not isinstance(device, dict):
        raise ValueError("device: must be an object with a number as id")
    try:
        return _number(device)
    except ValueError as error:
        raise ValueError(f"device.{error}") from None


def _given(item: Mapping[str, Any], name: str, otherwise: Any) -> Any:
    """Return a field of a record, or the default if NetBox has no value."""
    held = item.get(name)
    return otherwise if held is None or held == "" else held


def _word(item: Mapping[str, Any], name: str) -> str | None:
    """Return the slug, value or name of a nested object.

    Raises:
        ValueError: the object has none of them.
    """
    held = item.get(name)
    if isinstance(held, dict):
        held = next((held[key] for key in ("slug", "value", "name") if held.get(key)), held)
    if held is None or held == "":
        return None
    if not isinstance(held, str):
        raise ValueError(f"{name}: expected text or an object with slug, value or name")
    return held


def _status(item: Mapping[str, Any]) -> AssetStatus:
    word = _word(item, "status")
    if word is None or word not in STATUSES:
        raise ValueError(f"status: {word!r} is unknown; known are {', '.join(STATUSES)}")
    return STATUSES[word]


def _type(custom: Mapping[str, Any], role: str | None, rules: NetBoxRules) -> str:
    # The value of the custom field is validated with the other fields of the asset.
    return _word(custom, "asset_type") or {**ROLE_TYPES, **rules.role_types}.get(
        role or "", AssetType.SERVER
    )


def _environment(
    item: Mapping[str, Any], custom: Mapping[str, Any], rules: NetBoxRules
) -> Environment:
    word = _word(custom, "environment")
    if word is not None:
        if word.lower() not in ENVIRONMENTS:
            known = ", ".join(ENVIRONMENTS)
            raise ValueError(f"custom_fields.environment: {word!r} is unknown; known are {known}")
        return ENVIRONMENTS[word.lower()]
    tags = _given(item, "tags", [])
    if not isinstance(tags, list):
        raise ValueError("tags: must be a list")
    tagged = {found for tag in tags if (found := _environment_of_tag(tag))}
    if len(tagged) > 1:
        raise ValueError(f"tags: name several environments: {', '.join(sorted(tagged))}")
    if tagged:
        return tagged.pop()
    if rules.environment is None:
        raise ValueError(
            "environment: there is neither a custom field environment nor a tag such as "
            "environment-prod; set one, or say --netbox-environment"
        )
    return rules.environment


def _environment_of_tag(tag: Any) -> Environment | None:
    word = tag.get("slug") if isinstance(tag, dict) else tag
    if not isinstance(word, str):
        raise ValueError("tags: expected text or objects with a slug")
    for prefix in _TAG_PREFIXES:
        if word.startswith(prefix):
            rest = word.removeprefix(prefix)
            if rest not in ENVIRONMENTS:
                known = ", ".join(ENVIRONMENTS)
                raise ValueError(f"tags: {word!r} names no environment; known are {known}")
            return ENVIRONMENTS[rest]
    return None


def _address(item: Mapping[str, Any]) -> str | None:
    held = None
    for name in ("primary_ip6", "primary_ip4", "primary_ip"):
        held = _given(item, name, held)
    address = held.get("address") if isinstance(held, dict) else held
    if address is None:
        return None
    if not isinstance(address, str):
        raise ValueError("primary_ip: expected text or an object with address")
    return address.partition("/")[0]


def _named(item: Any) -> str:
    name = item.get("name") if isinstance(item, dict) else None
    return f" ({name!r})" if isinstance(name, str) else ""
