"""The role node_exporter looks at its units once, and leaves those that run and are enabled alone.

A systemctl of the test answers in place of systemd; that the real units run is for tests/deploy.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.plays import LOCAL, role_of, run_play

SYSTEMCTL = """#!/bin/sh
echo "$@" >>{asked}
case "$1" in
  is-active) printf '{active}\\nactive\\n' ;;
  is-enabled) printf 'enabled\\n{enabled}\\n' ;;
  *) printf 'LoadState=loaded\\nActiveState=inactive\\nUnitFileState=disabled\\n' ;;
esac
"""


def start(
    folder: Path, *, active: str = "active", enabled: str = "enabled", changed: bool = False
) -> list[str]:
    """Run the steps preflight and service; return the commands that start a unit."""
    asked, program = folder / "asked", folder / "bin/systemctl"
    program.parent.mkdir()
    program.write_text(SYSTEMCTL.format(asked=asked, active=active, enabled=enabled))
    program.chmod(0o755)
    done = run_play(
        folder,
        [role_of("node_exporter", "preflight"), role_of("node_exporter", "service")],
        inventory={"all": {"hosts": {"a1": LOCAL}}},
        variables={
            "node_exporter_allowed_clients": ["prometheus.lab.internal"],
            "__node_exporter_drop_in": {"changed": changed},
            "__node_exporter_units": {"changed": False},
        },
        path=folder / "bin",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return [line for line in asked.read_text().splitlines() if line.startswith("start ")]


def test_units_that_run_and_are_enabled_are_left_alone(tmp_path: Path) -> None:
    assert start(tmp_path) == []


@pytest.mark.parametrize(
    "state", [{"active": "failed"}, {"enabled": "disabled"}, {"changed": True}], ids=str
)
def test_else_the_role_sees_to_both(tmp_path: Path, state: dict[str, str]) -> None:
    asked = start(tmp_path, **state)  # type: ignore[arg-type] # one of three types

    assert asked == [
        "start prometheus-node-exporter.service",
        "start enterprise-mcp-certificate-metrics.timer",
    ]
