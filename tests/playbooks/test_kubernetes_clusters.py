"""The role's Kubernetes clusters become settings the server accepts, and files for its unit alone."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from mcp_server.settings import load_settings
from tests.plays import ROOT, ansible_playbook

ROLE = ROOT / "roles/mcp_server"
CREDENTIALS = "/run/credentials/mcp-server.service"
PEM = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
KUBECONFIG = "apiVersion: v1\nkind: Config\nusers: [{name: u, user: {token: kubeconfig-secret}}]\n"
PROD = {"name": "prod", "url": "https://k8s.test:6443", "token": "prod-secret", "ca": PEM}
LAB = {"name": "lab", "kubeconfig": KUBECONFIG, "context": "tests", "metrics_cluster": "lab-1"}


def _filters() -> ModuleType:
    file = ROOT / "collections/ansible_collections/enterprise/mcp/plugins/filter/kubernetes.py"
    spec = importlib.util.spec_from_file_location("kubernetes_filters", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


FILTERS = _filters()


def render(folder: Path, **variables: Any) -> subprocess.CompletedProcess[str]:
    """Check the variables as the role does, and write its configuration and unit into `folder`."""
    checks = yaml.safe_load((ROLE / "tasks/preflight.yml").read_text())
    (check,) = (task for task in checks if "Kubernetes" in task["name"])
    specs = yaml.safe_load((ROLE / "meta/argument_specs.yml").read_text())["argument_specs"]
    options = specs["main"]["options"]
    tasks = [
        {
            "ansible.builtin.validate_argument_spec": {
                "argument_spec": {k: v for k, v in options.items() if "kubernetes" in k}
            }
        },
        check,
        *(
            {
                "ansible.builtin.template": {
                    "src": str(ROLE / "templates" / source),
                    "dest": str(folder / Path(source).stem),
                    "mode": "0600",
                }
            }
            for source in (
                "etc/mcp_server/config.yaml.j2",
                "etc/systemd/system/mcp-server.service.j2",
            )
        ),
    ]
    play = {
        "hosts": "localhost",
        "connection": "local",
        "gather_facts": False,
        "vars_files": [str(ROLE / "defaults/main.yml"), str(ROLE / "vars/main.yml")],
        "tasks": tasks,
    }
    (folder / "play.yml").write_text(yaml.safe_dump([play]))
    given = {
        "ansible_python_interpreter": sys.executable,
        "mcp_server_jwt_secret": "j" * 32,
        "mcp_server_redis_password": "r",
        "mcp_server_database_password": "d",
        "mcp_server_public_url": "https://mcp.test",
        "mcp_server_listen_address": "192.0.2.1",
        "mcp_server_allowed_peers": ["nginx.lb1.test"],
        **variables,
    }
    (folder / "vars.yml").write_text(yaml.safe_dump(given))
    # A listener with TLS needs the names of its peers.
    balancer = {"hosts": {"lb1": {"ansible_host": "192.0.2.2"}}}
    hosts = {"all": {"hosts": {"localhost": {}}, "children": {"loadbalancers": balancer}}}
    (folder / "hosts.yml").write_text(yaml.safe_dump(hosts))
    return ansible_playbook(
        *("-vvv", "-i", folder / "hosts.yml", "-e", f"@{folder / 'vars.yml'}"), folder / "play.yml"
    )


def test_the_server_accepts_what_the_role_writes(tmp_path: Path) -> None:
    result = render(
        tmp_path,
        mcp_server_kubernetes_clusters=[PROD, LAB],
        mcp_server_kubernetes_default="lab",
        mcp_server_kubernetes_impersonate=True,
        mcp_server_kubernetes_timeout_s=4,
    )

    assert result.returncode == 0, result.stdout
    kubernetes = load_settings(tmp_path / "config.yaml").tools.kubernetes
    assert kubernetes is not None
    assert (kubernetes.default, kubernetes.impersonate, kubernetes.timeout_s) == ("lab", True, 4.0)
    prod, lab = kubernetes.clusters["prod"], kubernetes.clusters["lab"]
    assert str(prod.url) == "https://k8s.test:6443/"
    assert prod.token is not None
    assert str(prod.token.file) == f"{CREDENTIALS}/k8s_prod_token"
    assert str(prod.ca) == f"{CREDENTIALS}/k8s_prod_ca"
    assert (prod.metrics_cluster, lab.metrics_cluster) == (None, "lab-1")
    assert (str(lab.kubeconfig), lab.context) == (f"{CREDENTIALS}/k8s_lab_kubeconfig", "tests")


def test_secrets_reach_the_unit_as_credentials_and_appear_nowhere(tmp_path: Path) -> None:
    result = render(
        tmp_path,
        mcp_server_kubernetes_clusters=[PROD, LAB],
        mcp_server_kubernetes_default="prod",
    )

    assert result.returncode == 0, result.stdout
    unit = (tmp_path / "mcp-server.service").read_text()
    for name in ("k8s_prod_token", "k8s_prod_ca", "k8s_lab_kubeconfig"):
        assert f"LoadCredential={name}:/etc/mcp_server/credentials/{name}\n" in unit
    for text in (unit, (tmp_path / "config.yaml").read_text(), result.stdout, result.stderr):
        assert "prod-secret" not in text
        assert "kubeconfig-secret" not in text


def test_without_clusters_there_is_no_such_section(tmp_path: Path) -> None:
    result = render(tmp_path)

    assert result.returncode == 0, result.stdout
    assert load_settings(tmp_path / "config.yaml").tools.kubernetes is None
    assert "k8s_" not in (tmp_path / "mcp-server.service").read_text()


def test_a_fault_is_named_before_anything_is_written(tmp_path: Path) -> None:
    result = render(tmp_path, mcp_server_kubernetes_clusters=[PROD | {"url": ""}])

    assert result.returncode != 0
    assert "cluster prod needs exactly one of url" in result.stdout
    assert "prod-secret" not in result.stdout + result.stderr
    assert not (tmp_path / "config.yaml").exists()


@pytest.mark.parametrize(
    ("clusters", "default", "said"),
    [
        ([{"name": "a"}], "", "exactly one of url (with token), kubeconfig and in_cluster: true"),
        ([PROD | {"kubeconfig": KUBECONFIG}], "", "it has url and kubeconfig"),
        ([PROD | {"name": "Prod_1"}], "", "lower-case letters, digits, dots and hyphens"),
        ([PROD | {"name": "../x"}], "", "lower-case letters, digits, dots and hyphens"),
        ([PROD | {"url": "http://k8s.test"}], "", "must begin with https://"),
        ([PROD | {"token": ""}], "", "cluster prod has a url and needs a token"),
        ([PROD | {"ca": "/etc/ca.pem"}], "", "a certificate in PEM, not the path of a file"),
        ([PROD | {"context": "x"}], "", "context of cluster prod belongs to kubeconfig"),
        ([LAB | {"kubeconfig": "/root/.kube/config"}], "", "must be what the file holds"),
        ([LAB | {"token": "t"}], "", "token of cluster lab belongs to url"),
        ([PROD, PROD], "prod", "cluster prod is listed more than once"),
        ([PROD, LAB], "", "mcp_server_kubernetes_default must name one of: prod, lab"),
        ([PROD], "live", "is live, which is none of the clusters: prod"),
    ],
)
def test_a_fault_names_the_cluster_and_what_is_accepted(
    clusters: list[dict[str, Any]], default: str, said: str
) -> None:
    faults = FILTERS.kubernetes_faults(clusters, default)

    assert any(said in fault for fault in faults), faults
    assert not any("prod-secret" in fault for fault in faults)


def test_good_clusters_have_no_fault() -> None:
    assert FILTERS.kubernetes_faults([PROD, LAB, {"name": "here", "in_cluster": True}], "lab") == []
