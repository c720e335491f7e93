"""What a publication that fails says, and leaves behind, where there were policies before and where not.

fake_systemctl answers in place of systemd; that a real OPA goes back is for tests/deploy.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.plays import LOCAL, role_of, run_play


@pytest.fixture
def fake_systemctl(tmp_path: Path) -> Path:
    """A systemctl that knows every unit as running; returns the file with what it was asked to do."""
    asked = tmp_path / "asked"
    program = tmp_path / "bin" / "systemctl"
    program.parent.mkdir()
    program.write_text(
        f"#!/bin/sh\necho \"$@\" >>{asked}\nprintf 'LoadState=loaded\\nActiveState=active\\n'\n"
    )
    program.chmod(0o755)
    return asked


def roll_back(folder: Path, *, bundle_before: bool) -> str:
    """Let the role go back after node1 refused a bundle that it had got, before node2 was tried."""
    for name in ("node1", "node2"):
        (folder / name).mkdir()
    (folder / "node1/bundle").write_text("refused")
    if bundle_before:
        (folder / "node1/previous").write_text("before")
    node1 = {
        "__opa_shipped": {"changed": True},
        "__opa_bundle_before": {"stat": {"exists": bundle_before}},
        "__opa_before": {"answers": [{"json": {}}]},
        "__opa_refusal": "Require these decisions: nobody may do anything: allow",
    }
    inventory = {"all": {"hosts": {"node1": node1, "node2": {}}, "vars": LOCAL}}
    settings = {
        "__opa_revision": "r2",
        "__opa_bundle": f"{folder}/{{{{ inventory_hostname }}}}/bundle",
        "__opa_bundle_previous": f"{folder}/{{{{ inventory_hostname }}}}/previous",
    }
    done = run_play(
        folder,
        [role_of("opa", "publish_rollback")],
        inventory=inventory,
        variables=settings,
        as_root=True,
        path=folder / "bin",
    )
    assert done.returncode != 0, done.stdout
    return " ".join(done.stdout.split())


def test_after_a_first_publication_no_policies_are_left_and_the_message_says_so(
    tmp_path: Path, fake_systemctl: Path
) -> None:
    said = roll_back(tmp_path, bundle_before=False)

    assert "These nodes had no policies before and deny everything again: node1." in said
    assert "previous policies" not in said
    assert "node1: Require these decisions: nobody may do anything: allow" in said
    assert "node2: not tried, or not reachable" in said
    assert not (tmp_path / "node1/bundle").exists()
    assert "restart opa.service" in fake_systemctl.read_text()


def test_after_a_later_one_the_previous_policies_are_back(
    tmp_path: Path, fake_systemctl: Path
) -> None:
    said = roll_back(tmp_path, bundle_before=True)

    assert "These nodes returned to the previous policies: node1." in said
    assert "had no policies before" not in said
    assert (tmp_path / "node1/bundle").read_text() == "before"
    assert not fake_systemctl.exists()
