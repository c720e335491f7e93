"""What the role prometheus writes about whom it watches, and what it shows of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.plays import LOCAL, ROOT, run_play

MONITORING = {"monitoring": {"hosts": {"mon1": {"base_address": "192.0.2.9", **LOCAL}}}}


def nodes(**variables: object) -> dict[str, object]:
    """Return an inventory with two server nodes whose group has variables of its own."""
    hosts = {name: {"base_address": f"192.0.2.{n}"} for n, name in enumerate(("mcp1", "mcp2"), 1)}
    return {"all": {"children": MONITORING | {"mcp_servers": {"hosts": hosts, "vars": variables}}}}


def task() -> dict[str, Any]:
    """Return the task that writes prometheus.yml, as the role has it."""
    (block,) = (
        each
        for each in yaml.safe_load((ROOT / "roles/prometheus/tasks/configure.yml").read_text())
        if "block" in each
    )
    (found,) = (
        each for each in block["block"] if each["name"].endswith("Write the settings of Prometheus")
    )
    return dict(found)


def write(folder: Path, inventory: dict[str, object], *arguments: str, **variables: object) -> str:
    """Write prometheus.yml into a folder as the role would, and return what was shown."""
    template = ROOT / "roles/prometheus/templates/etc/prometheus/prometheus.yml.j2"
    written = task()
    own = {"src": str(template), "dest": str(folder / "prometheus.yml"), "validate": "true %s"}
    for name in ("owner", "group"):
        del written["ansible.builtin.template"][name]
    written["ansible.builtin.template"] |= own
    del written["notify"]
    load = [
        {"ansible.builtin.include_vars": str(ROOT / f"roles/prometheus/{part}/main.yml")}
        for part in ("defaults", "vars")
    ]
    done = run_play(
        folder, [*load, written], *arguments, inventory=inventory, hosts="mon1", variables=variables
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def targets(folder: Path) -> dict[str, list[str]]:
    """Return the targets of each job."""
    configuration = yaml.safe_load((folder / "prometheus.yml").read_text())
    return {
        job["job_name"]: [name for group in job["static_configs"] for name in group["targets"]]
        for job in configuration["scrape_configs"]
    }


@pytest.mark.parametrize(
    ("of_the_nodes", "of_prometheus", "ports"),
    [
        ({}, {}, (9464, 9100)),
        ({"mcp_server_telemetry_port": 9465, "node_exporter_port": "9101"}, {}, (9465, 9101)),
        (
            {},
            {"prometheus_mcp_server_port": 9466, "prometheus_node_exporter_port": 9102},
            (9466, 9102),
        ),
    ],
    ids=["defaults", "ports of the group mcp_servers", "ports told to Prometheus"],
)
def test_each_host_is_asked_at_the_port_that_it_listens_on(
    tmp_path: Path,
    of_the_nodes: dict[str, object],
    of_prometheus: dict[str, object],
    ports: tuple[int, int],
) -> None:
    write(tmp_path, nodes(**of_the_nodes), **of_prometheus)

    found = targets(tmp_path)
    assert found["mcp-server"] == [f"mcp{n}.lab.internal:{ports[0]}" for n in (1, 2)]
    here = ports[1] if of_prometheus else 9100
    assert found["node"] == [
        *(f"mcp{n}.lab.internal:{ports[1]}" for n in (1, 2)),
        f"mon1.lab.internal:{here}",
    ]


def test_a_token_of_a_scrape_configuration_is_not_shown(tmp_path: Path) -> None:
    secret = "a-bearer-token-of-another-system"
    extra = [{"job_name": "other", "authorization": {"credentials": secret}}]

    said = write(tmp_path, nodes(), "--check", "--diff", prometheus_extra_scrape_configs=extra)
    shown = write(
        tmp_path,
        nodes(),
        *("--check", "--diff"),
        prometheus_extra_scrape_configs=extra,
        debug_secrets=True,
    )

    assert (secret in said, secret in shown) == (False, True)
