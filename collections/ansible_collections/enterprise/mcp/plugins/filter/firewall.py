# SPDX-License-Identifier: Apache-2.0
"""Checks and prepares the networks, ports and destinations of a host firewall."""

from __future__ import annotations

import ipaddress
import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from ansible.errors import AnsibleFilterError

DOCUMENTATION = """
name: firewall
short_description: Networks, ports and destinations of a host firewall
description:
  - C(network_faults) says what is wrong with a list of networks.
  - C(firewall_rule_faults) says what is wrong with a list of rules, such as C(firewall_allowed_out).
  - C(firewall_rules) merges rules by protocol and port, and sorts their networks by family.
  - C(destinations) finds the servers that a configuration names.
options:
  _input:
    description: Networks, rules or a configuration.
    type: raw
    required: true
"""

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Rule = Mapping[str, Any]

PROTOCOLS = ("tcp", "udp")
_PORTS = {
    "http": 80,
    "https": 443,
    "ldap": 389,
    "ldaps": 636,
    "redis": 6379,
    "rediss": 6379,
}
# Keys of Alertmanager and Prometheus whose values are HOST:PORT.
_HOST_AND_PORT = ("smarthost", "targets")


def _network(value: object) -> Network | None:
    try:
        return ipaddress.ip_network(str(value))
    except ValueError:
        return None


def network_faults(values: Iterable[object]) -> list[str]:
    """Return a sentence for each value that is no network, and for each pair that overlaps."""
    faults = []
    networks = []
    for value in values:
        if (network := _network(value)) is not None:
            networks.append(network)
            continue
        try:
            larger = ipaddress.ip_network(str(value), strict=False)
        except ValueError:
            faults.append(f"{value} is no network. Write one as 192.0.2.0/24 or 2001:db8::/32")
        else:
            faults.append(
                f"{value} has bits after its prefix. Write {larger} for the whole network"
            )
    for one, other in itertools.combinations(networks, 2):
        if one.version == other.version and one.overlaps(other):
            faults.append(f"{one} and {other} overlap. Keep one of them")
    return faults


def firewall_rule_faults(rules: Iterable[Any], peers: str) -> list[str]:
    """Return a sentence for each rule that cannot be used.

    Args:
        rules: each with `peers`, `port` and optionally `protocol`.
        peers: the key of the addresses: `from` (networks only) or `to` (also names).
    """
    faults = []
    for rule in rules:
        if not isinstance(rule, Mapping) or set(rule) - {peers, "port", "protocol"}:
            faults.append(f"{rule} must have the keys {peers}, port and optionally protocol")
            continue
        values = rule.get(peers)
        if isinstance(values, str) or not isinstance(values, Sequence) or not values:
            faults.append(f"{peers} of {dict(rule)} must be a list with at least one entry")
        elif peers == "from" or any("/" in str(value) for value in values):
            given = values if peers == "from" else [each for each in values if "/" in str(each)]
            faults += network_faults(given)
        if not str(rule.get("port")).isdecimal() or not 0 < int(str(rule["port"])) < 65536:
            faults.append(f"port of {dict(rule)} must be a number from 1 to 65535")
        if rule.get("protocol", "tcp") not in PROTOCOLS:
            faults.append(f"protocol of {dict(rule)} must be tcp or udp")
    return faults


def firewall_rules(
    rules: Iterable[Rule], peers: str, hosts: Mapping[str, str] | None = None
) -> list[dict[str, Any]]:
    """Merge rules by protocol and port.

    Args:
        rules: each with `peers`, `port` and optionally `protocol`. A rule without peers is dropped.
        peers: the key of the addresses: `from` (networks only) or `to` (also names).
        hosts: the addresses of the hosts of the inventory by name; other names need DNS.

    Returns:
        For each protocol and port: `protocol`, `port`, the networks `ip` and `ip6` (sorted, none inside
        another) and the other `names`.

    Raises:
        AnsibleFilterError: a name where only networks are possible.
    """
    merged: dict[tuple[str, int], set[str]] = defaultdict(set)
    for rule in rules:
        merged[rule.get("protocol", "tcp"), int(rule["port"])].update(map(str, rule[peers]))
    found = []
    for (protocol, port), values in sorted(merged.items()):
        known = {(hosts or {}).get(value.lower(), value) for value in values}
        networks = [network for value in known if (network := _network(value)) is not None]
        names = sorted(value.lower() for value in known if _network(value) is None)
        if names and peers == "from":
            raise AnsibleFilterError(f"Port {port}: not a network or address: {', '.join(names)}")
        ip = ipaddress.collapse_addresses(n for n in networks if n.version == 4)
        ip6 = ipaddress.collapse_addresses(n for n in networks if n.version == 6)
        row = {
            "protocol": protocol,
            "port": port,
            "ip": [_shortest(n) for n in ip],
            "ip6": [_shortest(n) for n in ip6],
            "names": names,
        }
        if networks or names:
            found.append(row)
    return found


def _shortest(network: Network) -> str:
    return str(network.network_address if network.num_addresses == 1 else network)


def destinations(configuration: Any, without: str = "") -> list[dict[str, Any]]:
    """Find the servers that a configuration names: in URLs, and in values of the form HOST:PORT.

    Args:
        configuration: dictionaries, lists and strings. A dictionary with `host` and `port` names a
            server; an address that this process listens on must be left out by the caller.
        without: a URL whose host is left out.

    Returns:
        Rules with `to` (one name or address) and `port`, sorted.
    """
    own = urlsplit(without).hostname
    found = {place for place in _walk(configuration, "") if place[0] != own}
    return [{"to": [host], "port": port} for host, port in sorted(found)]


def _walk(value: Any, key: str) -> Iterator[tuple[str, int]]:
    if isinstance(value, Mapping):
        if value.get("host") and value.get("port"):
            yield str(value["host"]).lower(), int(value["port"])
        for name, inner in value.items():
            yield from _walk(inner, str(name))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _walk(inner, key)
    elif isinstance(value, str):
        yield from _place(value, key)


def _place(text: str, key: str) -> Iterator[tuple[str, int]]:
    if key in _HOST_AND_PORT and "://" not in text:
        text = f"//{text}"
    try:
        url = urlsplit(text)
        port = url.port or _PORTS.get(url.scheme)
    except ValueError:
        return  # not a URL; the role of the service checks its settings
    if url.hostname and port and (url.scheme in _PORTS or text.startswith("//")):
        yield url.hostname.lower(), port


class FilterModule:
    """The filters, by name."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name, for Ansible."""
        return {
            "destinations": destinations,
            "firewall_rule_faults": firewall_rule_faults,
            "firewall_rules": firewall_rules,
            "network_faults": network_faults,
        }
