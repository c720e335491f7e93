# SPDX-License-Identifier: Apache-2.0
"""Converts mcp_server_kubernetes_clusters to the server's settings and their credential files."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

DOCUMENTATION = """
name: kubernetes
short_description: Settings, credentials and faults of the Kubernetes clusters of the MCP server
description: Filters of the role mcp_server over the variable mcp_server_kubernetes_clusters.
options:
  _input:
    description: The clusters.
    type: list
    elements: dict
    required: true
"""

# The same pattern as in mcp_server/settings.py.
_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?")
_SECRETS = ("token", "ca", "kubeconfig")

Cluster = Mapping[str, Any]


def kubernetes_settings(clusters: Sequence[Cluster], directory: str) -> dict[str, Any]:
    """Return the setting `tools.kubernetes.clusters`; its files are in `directory`."""
    return {cluster["name"]: _settings(cluster, directory) for cluster in clusters}


def kubernetes_credentials(clusters: Sequence[Cluster]) -> dict[str, str]:
    """Return the content of each credential file, by the name of the credential."""
    return {
        _credential(cluster, kind): cluster[kind]
        for cluster in clusters
        for kind in _SECRETS
        if cluster.get(kind)
    }


def kubernetes_faults(clusters: Sequence[Cluster], default: str = "") -> list[str]:
    """Return the errors in the definitions of clusters, without values of secrets; empty if valid."""
    names = [str(cluster.get("name") or "") for cluster in clusters]
    faults = [fault for cluster in clusters for fault in _faults(cluster)]
    faults += [
        f"cluster {name} is listed more than once"
        for name in dict.fromkeys(names)
        if names.count(name) > 1
    ]
    known = ", ".join(names)
    if default and default not in names:
        faults.append(
            f"mcp_server_kubernetes_default is {default}, which is none of the clusters: "
            + (known or "there are none")
        )
    if not default and len(names) > 1:
        faults.append(f"mcp_server_kubernetes_default must name one of: {known}")
    return faults


def _credential(cluster: Cluster, kind: str) -> str:
    return f"k8s_{cluster['name']}_{kind}"


def _settings(cluster: Cluster, directory: str) -> dict[str, Any]:
    metrics = cluster.get("metrics_cluster")
    return _way(cluster, directory) | ({"metrics_cluster": metrics} if metrics else {})


def _way(cluster: Cluster, directory: str) -> dict[str, Any]:
    def file(kind: str) -> str:
        return f"{directory}/{_credential(cluster, kind)}"

    if cluster.get("in_cluster"):
        return {"in_cluster": True}
    if cluster.get("kubeconfig"):
        context = {"context": cluster["context"]} if cluster.get("context") else {}
        return {"kubeconfig": file("kubeconfig"), **context}
    ca = {"ca": file("ca")} if cluster.get("ca") else {}
    return {"url": cluster["url"], "token": {"file": file("token")}, **ca}


def _faults(cluster: Cluster) -> list[str]:
    name = str(cluster.get("name") or "")
    if not _NAME.fullmatch(name):
        fault = (
            f"{name!r} cannot be the name of a cluster: accepted are 1 to 63 lower-case letters, "
            "digits, dots and hyphens, with a letter or digit at both ends"
        )
        return [fault]
    given = [way for way in ("url", "kubeconfig", "in_cluster") if cluster.get(way)]
    if len(given) != 1:
        has = f"; it has {' and '.join(given)}" if given else ""
        return [
            f"cluster {name} needs exactly one of url (with token), kubeconfig and in_cluster: true{has}"
        ]
    faults = []
    if given == ["url"]:
        if not re.match(r"https://[^/?#]", cluster["url"]):
            faults.append(
                f"url of cluster {name} must begin with https://; the token would be readable on its way"
            )
        if not str(cluster.get("token") or "").strip():
            faults.append(f"cluster {name} has a url and needs a token")
    else:
        faults += [
            f"{key} of cluster {name} belongs to url; {given[0]} brings its own"
            for key in ("token", "ca")
            if cluster.get(key)
        ]
    if cluster.get("context") and given != ["kubeconfig"]:
        faults.append(f"context of cluster {name} belongs to kubeconfig")
    if cluster.get("ca") and "-----BEGIN CERTIFICATE-----" not in cluster["ca"]:
        faults.append(f"ca of cluster {name} must be a certificate in PEM, not the path of a file")
    if cluster.get("kubeconfig") and "\n" not in cluster["kubeconfig"].strip():
        faults.append(
            f"kubeconfig of cluster {name} must be what the file holds, not its path; take "
            "lookup('ansible.builtin.file', path)"
        )
    return faults


class FilterModule:
    """The filters, by name."""

    def filters(self) -> dict[str, Any]:
        """Return the filters by name, for Ansible."""
        return {
            "kubernetes_credentials": kubernetes_credentials,
            "kubernetes_faults": kubernetes_faults,
            "kubernetes_settings": kubernetes_settings,
        }
