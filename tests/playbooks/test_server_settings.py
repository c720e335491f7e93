"""The role mcp_server merges mcp_server_settings, checks the result, and ships mcp_server_credentials.

Each group of cases is one run of the role's tasks.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from mcp_server.settings import Settings, load_settings
from tests.plays import LOCAL, ROOT, run_play

GROUPS = ("loadbalancers", "mcp_servers", "postgres", "redis", "monitoring")
STORES = {
    f"mcp_server_{name}": f"secret-{name}".ljust(32, "x")
    for name in ("jwt_secret", "redis_password", "database_password")
}
SHOWN = "/run/credentials/mcp-server.service"
PEM = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
KUBECONFIG = "apiVersion: v1\nusers: [{name: u, user: {token: secret-kubeconfig}}]\n"


def variables(
    settings: Mapping[str, Any], credentials: Mapping[str, str] | None = None
) -> dict[str, Any]:
    return {"mcp_server_settings": settings, "mcp_server_credentials": credentials or {}}


def tools(credentials: Mapping[str, str] | None = None, **backends: Any) -> dict[str, Any]:
    return variables({"tools": backends}, credentials)


GRAFANA = {
    "url": "https://grafana.example.com/grafana",
    "token": {"file": f"{SHOWN}/grafana_token"},
    "datasource_uid": "prom",
}
CMDB = {
    "backend": "rest",
    "api_url": "https://cmdb.example.com/base",
    "key": {"file": f"{SHOWN}/cmdb_key"},
    "ca": f"{SHOWN}/cmdb_ca",
}
PROD = {"url": "https://k8s.test:6443", "token": {"file": f"{SHOWN}/k8s_prod_token"}}
DIRECTORY = {
    "servers": ["ldaps://ldap1.example.com", "ldap://ldap2.example.com"],
    "ca": f"{SHOWN}/directory_ca",
    "bind_dn": "cn=mcp,ou=services,dc=example,dc=com",
    "bind_password": {"file": f"{SHOWN}/directory_password"},
    "users": {"base": "ou=people,dc=example,dc=com", "attributes": ["uid", "mail"], "id": "uid"},
    "groups": {"base": "ou=groups,dc=example,dc=com", "prefix": "mcp-"},
    "tenant": {"value": "default"},
}
ACCEPTED: dict[str, dict[str, Any]] = {
    "nothing": {},
    "merged": variables(
        {
            "log": {"level": "DEBUG"},
            "listen": {"drain_s": 6, "trusted_proxies": ["192.0.2.9"]},
            "identity": {"jwt": {"issuer": "https://login.example.com"}},
            "policy": {"timeout_s": 0.5},
        }
    ),
    "numbers_as_text": {"mcp_server_port": "9443", "mcp_server_database_port": "6432"},
    "removed": tools(monitoring=None),
    "no_prometheus": {"mcp_server_prometheus_url": ""},
    "encrypted": variables(
        {
            "encryption": {"key": {"credential": "config_key"}},
            "tools": {"monitoring": {"prometheus": {"token": {"encrypted": "gAAAA"}}}},
        },
        {"config_key": "secret-key"},
    ),
    "cors": {"mcp_server_cors_allowed_origins": ["https://*.company.com"]},
    "grafana": tools({"grafana_token": "secret-grafana"}, monitoring={"grafana": GRAFANA}),
    "tenants": tools(
        {"mimir_token": "secret-mimir"},
        monitoring={
            "prometheus": {"token": {"file": f"{SHOWN}/mimir_token"}, "tenant": "shop"},
            "alertmanager": {"ca": "/etc/ssl/certs/company.pem"},
        },
    ),
    "directory": variables(
        {"identity": {"directory": DIRECTORY}},
        {"directory_password": "secret-directory", "directory_ca": PEM},
    ),
    "cmdb": tools({"cmdb_key": "secret-cmdb", "cmdb_ca": PEM}, cmdb=CMDB),
    "clusters": tools(
        {"k8s_prod_token": "secret-prod", "k8s_lab_kubeconfig": KUBECONFIG},
        kubernetes={
            "default": "lab",
            "clusters": {
                "prod": PROD,
                "lab": {"kubeconfig": f"{SHOWN}/k8s_lab_kubeconfig", "context": "tests"},
            },
        },
    ),
    # base64 may begin with a slash.
    "token_with_slashes": variables({}, {"unused": "/9j/4AAQSkZJRg=="}),
}
# Variables that are refused, and a part of the message.
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "unknown_key": (variables({"log": {"levle": "INFO"}}), "log.levle is not a setting; did you"),
    "wrong_type": (variables({"listen": "x"}), "listen: Input should be"),
    "directory_without_its_password": (
        variables({"identity": {"directory": DIRECTORY}}, {"directory_ca": PEM}),
        "directory_password",
    ),
    "directory_without_tls": (
        variables(
            {"identity": {"directory": DIRECTORY | {"servers": ["http://ldap1.example.com"]}}},
            {"directory_password": "x", "directory_ca": PEM},
        ),
        "must begin with ldaps://",
    ),
    "secret_in_the_clear": (
        tools(monitoring={"grafana": GRAFANA | {"token": "secret-in-the-clear"}}),
        "tools.monitoring.grafana.token: the secret is readable text",
    ),
    "incomplete_grafana": (
        tools(
            {"grafana_token": "x"},
            monitoring={"grafana": {k: v for k, v in GRAFANA.items() if k != "datasource_uid"}},
        ),
        "tools.monitoring.grafana.datasource_uid: Field required",
    ),
    "grafana_without_prometheus": (
        tools({"grafana_token": "x"}, monitoring={"grafana": GRAFANA})
        | {"mcp_server_prometheus_url": ""},
        "tools.monitoring.prometheus_url: Field required",
    ),
    "token_in_the_clear": (
        tools({"t": "x"}, monitoring={"prometheus": {"token": {"file": f"{SHOWN}/t"}}})
        | {"mcp_server_prometheus_url": "http://mimir.example.com"},
        "prometheus_url must begin with https://",
    ),
    "cmdb_with_its_path": (
        tools(
            {"cmdb_key": "x", "cmdb_ca": PEM},
            cmdb=CMDB | {"api_url": "https://cmdb.example.com/api/v1"},
        ),
        "api_url must not contain /api/v1",
    ),
    "cmdb_of_two_kinds": (
        tools(cmdb={"api_url": "https://cmdb.example.com"}),
        "api_url, key and ca are for backend: rest",
    ),
    "no_default_cluster": (
        tools({"k8s_prod_token": "x"}, kubernetes={"clusters": {"a": PROD, "b": PROD}}),
        "default must name one of: a, b",
    ),
    "credential_missing": (
        tools(kubernetes={"clusters": {"prod": PROD}}),
        "k8s_prod_token is missing, and mcp_server_settings names its file",
    ),
    "credential_missing_by_name": (
        variables({"database": {"password": {"file": None, "credential": "pg"}}}),
        "pg is missing, and mcp_server_settings names its file",
    ),
    "every_origin": (
        {"mcp_server_cors_allowed_origins": ["*"]},
        "* would let every website call this server",
    ),
    "credential_empty": (variables({}, {"a_token": " "}), "a_token is empty"),
    "credential_is_a_path": (
        variables({}, {"kubeconfig": "/root/.kube/config"}),
        "kubeconfig must be the content of the file, not its path",
    ),
    "credential_with_a_bad_name": (
        variables({}, {"../token": "x"}),
        "../token is no name of a file",
    ),
    "credential_of_the_role": (
        variables({}, {"jwt_secret": "x"}),
        "jwt_secret is set by the variable mcp_server_jwt_secret",
    ),
}
TOLD = "{{ [__mcp_server_credential_names, __mcp_server_credentials | list | sort] | to_json }}"


def run_role(folder: Path, tasks: list[dict[str, Any]]) -> str:
    """Run tasks on this machine as the one host of all groups, and return the output."""
    host = LOCAL | {"ansible_host": "192.0.2.1"}
    done = run_play(
        folder,
        tasks,
        "-vv",
        inventory={"all": {"children": {name: {"hosts": {"all1": host}} for name in GROUPS}}},
        mitogen=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def checked(case: str, given: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return tasks that run the role's checks, and tell whether the variables are accepted."""
    role = {"name": "mcp_server", "tasks_from": "settings"}
    return [
        {"ansible.builtin.debug": {"msg": f"case={case}"}},
        {
            "block": [{"ansible.builtin.include_role": role}],
            "rescue": [{"ansible.builtin.debug": {"msg": "refused"}}],
            "vars": {**STORES, **given},
        },
    ]


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the role's checks say about each case."""
    cases = ACCEPTED | {case: given for case, (given, _) in REFUSED.items()}
    tasks = [task for case in cases.items() for task in checked(*case)]
    output = run_role(tmp_path_factory.mktemp("checks"), tasks)
    _, *parts = re.split(r'"?msg"?: "?case=(\w+)', output)
    return dict(zip(parts[::2], (" ".join(part.split()) for part in parts[1::2]), strict=True))


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the configuration, the unit and the credentials for each accepted case."""
    folder = tmp_path_factory.mktemp("node")
    role = ROOT / "roles/mcp_server"
    sources = {
        "yaml": "etc/mcp_server/config.yaml.j2",
        "service": "etc/systemd/system/mcp-server.service.j2",
    }
    tasks: list[dict[str, Any]] = [
        {"ansible.builtin.include_vars": str(role / "vars/main.yml")},
    ]
    defaults = yaml.safe_load((role / "defaults/main.yml").read_text())
    for case, given in ACCEPTED.items():
        files = [
            {
                "ansible.builtin.template": {
                    "src": str(role / "templates" / source),
                    "dest": str(folder / f"{case}.{kind}"),
                    "mode": "0600",
                }
            }
            for kind, source in sources.items()
        ]
        told = {"content": TOLD, "dest": str(folder / f"{case}.json"), "mode": "0600"}
        tasks.append(
            {
                "block": [*files, {"ansible.builtin.copy": told}],
                "vars": {**defaults, **STORES, **given},
            }
        )
    run_role(folder, tasks)
    return folder


def settings_of(node: Path, case: str) -> Settings:
    return load_settings(node / f"{case}.yaml")


@pytest.mark.parametrize("case", ACCEPTED)
def test_a_valid_configuration_passes(said: Mapping[str, str], case: str) -> None:
    assert "refused" not in said[case]


@pytest.mark.parametrize("case", REFUSED)
def test_a_fault_stops_the_run_and_is_named(said: Mapping[str, str], case: str) -> None:
    assert REFUSED[case][1] in said[case]
    assert "refused" in said[case]


def test_no_secret_is_shown_or_written_to_the_configuration(
    said: Mapping[str, str], node: Path
) -> None:
    for case, text in said.items():
        assert "secret-" not in text, case
    for case in ACCEPTED:
        for kind in ("yaml", "service"):
            assert "secret-" not in (node / f"{case}.{kind}").read_text()


def test_without_a_setting_the_role_computes_them(node: Path) -> None:
    settings = settings_of(node, "nothing")

    assert settings.tools.cmdb is not None
    assert settings.tools.cmdb.backend == "postgres"
    assert settings.tools.kubernetes is None
    assert settings.tools.monitoring is not None
    assert settings.tools.monitoring.tls is not None
    for access in (settings.tools.monitoring.prometheus, settings.tools.monitoring.alertmanager):
        assert not access.without_our_certificate
    assert (settings.listen.drain_s, settings.log.level) == (3.0, "INFO")


def test_settings_are_merged_recursively_and_lists_replace_lists(node: Path) -> None:
    settings, before = settings_of(node, "merged"), settings_of(node, "nothing")

    assert settings.log.level == "DEBUG"
    assert settings.listen.drain_s == 6
    assert settings.listen.trusted_proxies == ("192.0.2.9",)
    assert settings.listen.allowed_peers == before.listen.allowed_peers
    assert settings.identity.jwt.issuer == "https://login.example.com"
    assert settings.identity.jwt.audience == before.identity.jwt.audience
    assert settings.policy.timeout_s == 0.5


def test_numbers_given_as_text_are_numbers(node: Path) -> None:
    settings = settings_of(node, "numbers_as_text")

    assert (settings.listen.port, settings.database.port) == (9443, 6432)


@pytest.mark.parametrize("case", ["removed", "no_prometheus"])
def test_a_backend_can_be_left_out(node: Path, case: str) -> None:
    assert settings_of(node, case).tools.monitoring is None


def test_a_setting_of_a_backend_keeps_what_the_role_computes(node: Path) -> None:
    monitoring = settings_of(node, "tenants").tools.monitoring

    assert monitoring is not None
    assert str(monitoring.prometheus_url) == "https://all1.lab.internal:9090/"
    assert monitoring.prometheus.tenant == "shop"
    assert monitoring.alertmanager.ca == Path("/etc/ssl/certs/company.pem")


@pytest.mark.parametrize(
    ("case", "names"),
    [
        ("nothing", []),
        ("grafana", ["grafana_token"]),
        ("cmdb", ["cmdb_ca", "cmdb_key"]),
        ("clusters", ["k8s_lab_kubeconfig", "k8s_prod_token"]),
    ],
)
def test_credentials_are_those_of_the_role_and_of_the_variable(
    node: Path, case: str, names: list[str]
) -> None:
    listed, shipped = yaml.safe_load((node / f"{case}.json").read_text())
    unit = (node / f"{case}.service").read_text()

    expected = sorted([*names, "database_password", "jwt_secret", "redis_password"])
    assert listed == shipped == expected
    loaded = re.findall(
        r"^LoadCredential=(\w+):/etc/mcp_server/credentials/\1$", unit, re.MULTILINE
    )
    assert loaded == expected
