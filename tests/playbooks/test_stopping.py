"""What waits for a server that stops waits as long as the longest deadline of its tools allows."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from mcp_server import app
from mcp_server.cli.generate.policy_catalog import every_tool
from tests.plays import LOCAL, ROOT, run_play

_DRAIN_S = 7
_LONGEST_S = max(tool.timeout_s for tool in every_tool())
# The server's own: until it cuts calls off and has answered them.
_ENDED_S = _LONGEST_S + app._ACCOUNTING_S + app._SETTLE_S


def test_systemd_does_not_kill_a_server_that_waits_for_its_calls(tmp_path: Path) -> None:
    unit = "roles/mcp_server/templates/etc/systemd/system/mcp-server.service.j2"
    files = [str(ROOT / "roles/mcp_server" / name / "main.yml") for name in ("defaults", "vars")]
    done = run_play(
        tmp_path,
        [{"ansible.builtin.include_vars": file} for file in files]
        + [{"ansible.builtin.template": {"src": str(ROOT / unit), "dest": str(tmp_path / "unit")}}],
        inventory={"all": {"hosts": {"mcp1": LOCAL}}},
        variables={"mcp_server_settings": {"listen": {"drain_s": _DRAIN_S}}},
    )
    assert done.returncode == 0, done.stdout + done.stderr

    stop = re.search(r"^TimeoutStopSec=(\d+)s$", (tmp_path / "unit").read_text(), re.MULTILINE)
    assert stop is not None
    # What is left is for closing the connections to everything.
    assert int(stop[1]) == _DRAIN_S + _LONGEST_S + 30
    assert int(stop[1]) >= _DRAIN_S + _ENDED_S + 10


def test_nginx_waits_longer_than_a_server_that_stops() -> None:
    role = yaml.safe_load((ROOT / "roles/nginx/defaults/main.yml").read_text())

    assert role["nginx_read_timeout_s"] > _ENDED_S
