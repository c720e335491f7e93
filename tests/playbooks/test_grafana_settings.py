"""The role mcp_server turns its variables about monitoring into settings, and refuses half of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from mcp_server.settings import MonitoringSettings
from tests.plays import ROOT, ansible_playbook

WHOLE = {
    "mcp_server_grafana_url": "https://grafana.example.com/grafana",
    "mcp_server_grafana_token": "glsa_of_this_test",
    "mcp_server_grafana_datasource_uid": "prom",
}


def run_role(
    folder: Path, tasks: list[dict[str, object]], **variables: object
) -> subprocess.CompletedProcess[str]:
    """Run tasks on this machine as one host of all groups, with the role's variables."""
    playbook, inventory = folder / "play.yml", folder / "hosts.yml"
    host = {
        "ansible_connection": "local",
        "ansible_python_interpreter": sys.executable,
        "ansible_host": "192.0.2.1",
    }
    groups = ("loadbalancers", "mcp_servers", "postgres", "redis", "monitoring")
    inventory.write_text(
        yaml.safe_dump({"all": {"children": {name: {"hosts": {"all1": host}} for name in groups}}})
    )
    secrets = {f"mcp_server_{name}": "x" * 32 for name in ("jwt_secret", "redis_password")}
    passwords = {f"mcp_server_database_{name}": "x" * 32 for name in ("password", "owner_password")}
    play = {
        "hosts": "all1",
        "gather_facts": False,
        "vars": secrets | passwords | variables,
        "tasks": tasks,
    }
    playbook.write_text(yaml.safe_dump([play]))
    return ansible_playbook("-i", inventory, playbook)


def preflight(folder: Path, **variables: object) -> subprocess.CompletedProcess[str]:
    role = {"name": "mcp_server", "tasks_from": "preflight"}
    return run_role(folder, [{"ansible.builtin.include_role": role}], **variables)


def settings(folder: Path, **variables: object) -> MonitoringSettings:
    """Return what the role would write of the monitoring tools."""
    written = folder / "written.yaml"
    write = {
        "content": "{{ __mcp_server_settings.tools.monitoring | to_json }}",
        "dest": str(written),
        "mode": "0600",
    }
    files = [ROOT / "roles/mcp_server" / part for part in ("defaults/main.yml", "vars/main.yml")]
    tasks: list[dict[str, object]] = [
        {"ansible.builtin.include_vars": str(files[1])},
        {"ansible.builtin.copy": write},
    ]
    defaults = yaml.safe_load(files[0].read_text())
    result = run_role(folder, tasks, **{**defaults, **variables})
    assert result.returncode == 0, result.stdout
    return MonitoringSettings.model_validate(yaml.safe_load(written.read_text()))


def test_all_that_is_needed_passes(tmp_path: Path) -> None:
    result = preflight(tmp_path, **WHOLE)

    assert result.returncode == 0, result.stdout
    assert "glsa_of_this_test" not in result.stdout


@pytest.mark.parametrize(
    "change",
    [
        {"mcp_server_grafana_token": ""},
        {"mcp_server_grafana_datasource_uid": ""},
        {"mcp_server_grafana_url": "http://grafana.example.com"},
        {"mcp_server_prometheus_url": ""},
    ],
)
def test_half_of_it_is_refused_with_what_is_needed(
    tmp_path: Path, change: dict[str, object]
) -> None:
    result = preflight(tmp_path, **{**WHOLE, **change})

    assert result.returncode != 0
    assert "must begin with https://, and needs mcp_server_grafana_token" in result.stdout
    assert "glsa_of_this_test" not in result.stdout


def test_settings_name_the_file_of_the_token_and_what_was_given(tmp_path: Path) -> None:
    grafana = settings(tmp_path, **WHOLE, mcp_server_grafana_folder="Operations").grafana

    assert grafana is not None
    assert str(grafana.url) == "https://grafana.example.com/grafana"
    assert grafana.token.file == Path("/run/credentials/mcp-server.service/grafana_token")
    assert (grafana.datasource_uid, grafana.folder, grafana.ca) == ("prom", "Operations", None)


def test_without_a_url_there_is_no_grafana_in_the_settings(tmp_path: Path) -> None:
    assert settings(tmp_path).grafana is None


def test_prometheus_and_alertmanager_have_tokens_of_their_own(tmp_path: Path) -> None:
    monitoring = settings(
        tmp_path,
        mcp_server_prometheus_url="https://mimir.example.com/prometheus",
        mcp_server_prometheus_token="of_prometheus",
        mcp_server_prometheus_tenant="shop",
        mcp_server_alertmanager_token="of_alertmanager",
        mcp_server_alertmanager_ca_file="/etc/ssl/certs/company.pem",
    )

    prometheus, alertmanager = monitoring.prometheus, monitoring.alertmanager
    assert prometheus.token is not None
    assert prometheus.token.file == Path("/run/credentials/mcp-server.service/prometheus_token")
    assert (prometheus.ca, prometheus.tenant) == (None, "shop")
    assert alertmanager.token is not None
    assert alertmanager.token.file == Path("/run/credentials/mcp-server.service/alertmanager_token")
    assert (alertmanager.ca, alertmanager.tenant) == (Path("/etc/ssl/certs/company.pem"), None)


def test_without_tokens_both_are_asked_with_the_servers_certificate(tmp_path: Path) -> None:
    monitoring = settings(tmp_path)

    for access in (monitoring.prometheus, monitoring.alertmanager):
        assert not access.without_our_certificate
    assert monitoring.tls is not None


@pytest.mark.parametrize("name", ["prometheus", "alertmanager"])
@pytest.mark.parametrize(("scheme", "accepted"), [("http", False), ("https", True)])
def test_a_token_is_not_sent_in_the_clear(
    tmp_path: Path, name: str, scheme: str, accepted: bool
) -> None:
    result = preflight(
        tmp_path,
        **{
            f"mcp_server_{name}_url": f"{scheme}://mimir.example.com",
            f"mcp_server_{name}_token": "token_of_this_test",
        },
    )

    assert (result.returncode == 0) is accepted, result.stdout
    assert (f"mcp_server_{name}_url must begin with https://" in result.stdout) or accepted
    assert "token_of_this_test" not in result.stdout


def test_tokens_are_credentials_and_their_files_go_with_them(tmp_path: Path) -> None:
    """The names of the unit's credentials, and the files that nothing uses any more."""
    written = tmp_path / "names.yaml"
    files = [ROOT / "roles/mcp_server" / part for part in ("defaults/main.yml", "vars/main.yml")]
    values = "__mcp_server_credentials | list"
    told = f"[__mcp_server_credential_names, {values}, __mcp_server_credentials_unused]"
    kept = [
        {"path": f"/etc/mcp_server/credentials/{name}"}
        for name in ("prometheus_token", "alertmanager_token", "grafana_token", "jwt_secret")
    ]
    tasks: list[dict[str, object]] = [
        {"ansible.builtin.include_vars": str(files[1])},
        {
            "ansible.builtin.copy": {
                "content": "{{ " + told + " | to_json }}",
                "dest": str(written),
                "mode": "0600",
            }
        },
    ]
    result = run_role(
        tmp_path,
        tasks,
        **{
            **yaml.safe_load(files[0].read_text()),
            "mcp_server_jwt_secret": "x" * 32,
            "mcp_server_redis_password": "x",
            "mcp_server_database_password": "x",
            "mcp_server_prometheus_token": "of_prometheus",
            "__mcp_server_kept": {"files": kept},
        },
    )

    assert result.returncode == 0, result.stdout
    names, values, unused = yaml.safe_load(written.read_text())
    assert names == ["database_password", "jwt_secret", "prometheus_token", "redis_password"]
    assert sorted(values) == names
    assert sorted(unused) == [
        "/etc/mcp_server/credentials/alertmanager_token",
        "/etc/mcp_server/credentials/grafana_token",
    ]
