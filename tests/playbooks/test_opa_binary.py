"""The controller checks and packs the policies with policyctl and the OPA that opa_binary_src names."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path

import pytest

from tests.plays import LOCAL, role_of, run_play

_FOREIGN = {"x86_64": "aarch64", "aarch64": "x86_64"}


@pytest.fixture
def binary(tmp_path: Path) -> Path:
    """A program in place of OPA that says where it is, and refuses everything."""
    program = tmp_path / "own" / "opa"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\necho "refused by $0"\nexit 1\n')
    program.chmod(0o755)
    return program


def build(
    folder: Path,
    binary: Path,
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str] | None = None,
    **of_the_host: object,
) -> subprocess.CompletedProcess[str]:
    """Let the role build the bundle on a controller whose cache holds no OPA."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "empty"))
    return run_play(
        folder,
        [
            *({"ansible.builtin.set_fact": facts} for facts in [of_the_host] if facts),
            role_of("opa", "build"),
        ],
        inventory={"all": {"hosts": {"mcp1": LOCAL}}},
        variables={
            "opa_binary_src": str(binary),
            "opa_bundle_state_dir": str(folder / "bundles"),
            "opa_bundle_signing_key": "a key",
            "opa_bundle_verification_key": "another key",
            **(variables or {}),
        },
    )


def test_a_binary_of_ones_own_is_used_where_the_cache_has_none(
    tmp_path: Path, binary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = build(tmp_path, binary, monkeypatch)

    assert done.returncode != 0
    assert f"refused by {binary}" in done.stdout


def test_a_binary_for_other_hosts_than_the_controller_is_not_run_there(
    tmp_path: Path, binary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = {"architecture": _FOREIGN[platform.machine()]}

    done = build(tmp_path, binary, monkeypatch, ansible_facts=facts)

    said = " ".join(done.stdout.split())
    missing = f"{tmp_path}/empty/enterprise-mcp/bin/opa-1.22.2-"
    assert done.returncode != 0
    assert f"The controller has no {missing}" in said
    assert "Build it with scripts/build_opa" in said
    assert "refused by" not in said


def test_a_controller_without_policyctl_says_how_to_install_it(
    tmp_path: Path, binary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    absent = {"__opa_policyctl": f"{tmp_path}/policyctl"}

    done = build(tmp_path, binary, monkeypatch, absent)

    said = " ".join(done.stdout.split())
    assert done.returncode != 0
    assert f"The controller has no {tmp_path}/policyctl" in said
    assert "Run scripts/bootstrap" in said
    assert "refused by" not in said
