"""The role mcp_server turns its variables about monitoring into settings, and refuses incomplete ones.

Each group of cases is one run of the role's tasks.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from mcp_server.settings import MonitoringSettings
from tests.plays import LOCAL, ROOT, run_play

GROUPS = ("loadbalancers", "mcp_servers", "postgres", "redis", "monitoring")
SECRETS = dict.fromkeys(
    [
        "mcp_server_jwt_secret",
        "mcp_server_redis_password",
        "mcp_server_database_password",
        "mcp_server_database_owner_password",
    ],
    "x" * 32,
)
DEFAULTS = yaml.safe_load((ROOT / "roles/mcp_server/defaults/main.yml").read_text())
WHOLE = {
    "mcp_server_grafana_url": "https://grafana.example.com/grafana",
    "mcp_server_grafana_token": "glsa_of_this_test",
    "mcp_server_grafana_datasource_uid": "prom",
}
INCOMPLETE: dict[str, dict[str, Any]] = {
    "no_token": WHOLE | {"mcp_server_grafana_token": ""},
    "no_datasource": WHOLE | {"mcp_server_grafana_datasource_uid": ""},
    "no_https": WHOLE | {"mcp_server_grafana_url": "http://grafana.example.com"},
    "no_prometheus": WHOLE | {"mcp_server_prometheus_url": ""},
}
TOKENS: dict[str, dict[str, Any]] = {
    f"{name}_{scheme}": {
        f"mcp_server_{name}_url": f"{scheme}://mimir.example.com",
        f"mcp_server_{name}_token": "token_of_this_test",
    }
    for name in ("prometheus", "alertmanager")
    for scheme in ("http", "https")
}


def run_role(folder: Path, tasks: list[dict[str, Any]]) -> str:
    """Run tasks on this machine as the one host of all groups, and return the output."""
    host = LOCAL | {"ansible_host": "192.0.2.1"}
    done = run_play(
        folder,
        tasks,
        inventory={"all": {"children": {name: {"hosts": {"all1": host}} for name in GROUPS}}},
        mitogen=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def preflight(case: str, variables: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return tasks that run the role's checks, and tell whether the variables are accepted."""
    role = {"name": "mcp_server", "tasks_from": "preflight"}
    return [
        {"ansible.builtin.debug": {"msg": f"case={case}"}},
        {
            "block": [{"ansible.builtin.include_role": role}],
            "rescue": [{"ansible.builtin.debug": {"msg": "refused"}}],
            "vars": {**SECRETS, **variables},
        },
    ]


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the role's checks say about each case."""
    cases = {"whole": WHOLE} | INCOMPLETE | TOKENS
    tasks = [task for case in cases.items() for task in preflight(*case)]
    output = run_role(tmp_path_factory.mktemp("preflight"), tasks)
    _, *parts = re.split(r"msg: case=(\w+)", output)
    return dict(zip(parts[::2], parts[1::2], strict=True))


# Variables of which the role makes settings, by case.
SETTINGS: dict[str, dict[str, Any]] = {
    "none": {},
    "grafana": WHOLE | {"mcp_server_grafana_folder": "Operations"},
    "tokens": {
        "mcp_server_prometheus_url": "https://mimir.example.com/prometheus",
        "mcp_server_prometheus_token": "of_prometheus",
        "mcp_server_prometheus_tenant": "shop",
        "mcp_server_alertmanager_token": "of_alertmanager",
        "mcp_server_alertmanager_ca_file": "/etc/ssl/certs/company.pem",
    },
}
# The names of the unit's credentials, and the files that nothing uses any more.
CREDENTIALS = (
    "[__mcp_server_credential_names, __mcp_server_credentials | list,"
    " __mcp_server_credentials_unused]"
)


def write(path: Path, expression: str, variables: Mapping[str, Any]) -> dict[str, Any]:
    """Return the task that writes the value of an expression, by the role's variables."""
    return {
        "ansible.builtin.copy": {
            "content": f"{{{{ {expression} | to_json }}}}",
            "dest": str(path),
            "mode": "0600",
        },
        "vars": {**DEFAULTS, **SECRETS, **variables},
    }


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the role would write for each case of SETTINGS, and the credentials of a node."""
    folder = tmp_path_factory.mktemp("settings")
    kept = [
        {"path": f"/etc/mcp_server/credentials/{name}"}
        for name in ("prometheus_token", "alertmanager_token", "grafana_token", "jwt_secret")
    ]
    of_node = {
        "mcp_server_prometheus_token": "of_prometheus",
        "__mcp_server_kept": {"files": kept},
    }
    expression = "__mcp_server_settings.tools.monitoring"
    run_role(
        folder,
        [
            {"ansible.builtin.include_vars": str(ROOT / "roles/mcp_server/vars/main.yml")},
            *(write(folder / f"{case}.out", expression, SETTINGS[case]) for case in SETTINGS),
            write(folder / "credentials.out", CREDENTIALS, of_node),
        ],
    )
    return {path.stem: yaml.safe_load(path.read_text()) for path in folder.glob("*.out")}


@pytest.fixture
def settings(written: Mapping[str, Any]) -> dict[str, MonitoringSettings]:
    """The settings as the server reads them."""
    return {case: MonitoringSettings.model_validate(written[case]) for case in SETTINGS}


def test_complete_variables_pass(said: Mapping[str, str]) -> None:
    assert "refused" not in said["whole"]
    assert "glsa_of_this_test" not in said["whole"]


@pytest.mark.parametrize("case", INCOMPLETE)
def test_incomplete_variables_are_refused_with_what_is_needed(
    said: Mapping[str, str], case: str
) -> None:
    assert "refused" in said[case]
    assert "must begin with https://, and needs mcp_server_grafana_token" in said[case]
    assert "glsa_of_this_test" not in said[case]


def test_settings_name_the_file_of_the_token_and_what_was_given(
    settings: Mapping[str, MonitoringSettings],
) -> None:
    grafana = settings["grafana"].grafana

    assert grafana is not None
    assert str(grafana.url) == "https://grafana.example.com/grafana"
    assert grafana.token.file == Path("/run/credentials/mcp-server.service/grafana_token")
    assert (grafana.datasource_uid, grafana.folder, grafana.ca) == ("prom", "Operations", None)


def test_without_a_url_there_is_no_grafana_in_the_settings(
    settings: Mapping[str, MonitoringSettings],
) -> None:
    assert settings["none"].grafana is None


def test_prometheus_and_alertmanager_have_tokens_of_their_own(
    settings: Mapping[str, MonitoringSettings],
) -> None:
    prometheus, alertmanager = settings["tokens"].prometheus, settings["tokens"].alertmanager

    assert prometheus.token is not None
    assert prometheus.token.file == Path("/run/credentials/mcp-server.service/prometheus_token")
    assert (prometheus.ca, prometheus.tenant) == (None, "shop")
    assert alertmanager.token is not None
    assert alertmanager.token.file == Path("/run/credentials/mcp-server.service/alertmanager_token")
    assert (alertmanager.ca, alertmanager.tenant) == (Path("/etc/ssl/certs/company.pem"), None)


def test_without_tokens_both_are_asked_with_the_servers_certificate(
    settings: Mapping[str, MonitoringSettings],
) -> None:
    monitoring = settings["none"]

    for access in (monitoring.prometheus, monitoring.alertmanager):
        assert not access.without_our_certificate
    assert monitoring.tls is not None


@pytest.mark.parametrize("name", ["prometheus", "alertmanager"])
@pytest.mark.parametrize(("scheme", "accepted"), [("http", False), ("https", True)])
def test_a_token_is_not_sent_in_the_clear(
    said: Mapping[str, str], name: str, scheme: str, accepted: bool
) -> None:
    about = said[f"{name}_{scheme}"]

    assert ("refused" not in about) is accepted, about
    assert (f"mcp_server_{name}_url must begin with https://" in about) or accepted
    assert "token_of_this_test" not in about


def test_tokens_are_credentials_and_their_files_go_with_them(written: Mapping[str, Any]) -> None:
    names, values, unused = written["credentials"]

    assert names == ["database_password", "jwt_secret", "prometheus_token", "redis_password"]
    assert sorted(values) == names
    assert sorted(unused) == [
        "/etc/mcp_server/credentials/alertmanager_token",
        "/etc/mcp_server/credentials/grafana_token",
    ]
