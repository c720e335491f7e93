"""scripts/generate in a copy of the repository: what --check reports, and what is written again."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A repository with the generated files and the programs that write them."""
    for folder in (
        *("scripts", "policies/config/catalog", "policies/system", "roles/redis", "deploy"),
        "tests/integration/control_plane",
    ):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    (tmp_path / "docs").mkdir()
    shutil.copy(ROOT / "docs/tools.md", tmp_path / "docs")
    programs = tmp_path / ".venv/bin"
    programs.mkdir(parents=True)
    for name in ("mcpctl", "python"):
        program = Path(sys.executable).with_name(name)
        (programs / name).write_text(f'#!/bin/sh\nexec {program} "$@"\n')
        (programs / name).chmod(0o755)
    return tmp_path


def generate(clone: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [str(clone / "scripts/generate"), *arguments]
    return subprocess.run(command, cwd="/", capture_output=True, text=True, check=False)


def test_files_that_were_edited_are_reported_and_then_written_again(clone: Path) -> None:
    names = (
        *("policies/config/catalog/data.yaml", "docs/tools.md", "roles/redis/README.md"),
        "deploy/helm/enterprise-mcp/values.schema.json",
        "deploy/helm/enterprise-mcp/files/authz.rego",
        *(f"deploy/kubernetes/{name}.yaml" for name in ("namespace", "migrations", "server")),
    )
    before = {name: (clone / name).read_text() for name in names}
    for name, text in before.items():
        # A schema that is no JSON would keep helm from rendering.
        edit = "\n" if name.endswith(".json") else "edited\n"
        (clone / name).write_text(f"{text}{edit}")

    checked = generate(clone, "--check")

    assert checked.returncode == 1
    assert [name for name in names if name not in checked.stdout] == []
    assert checked.stdout.endswith("out of date; run make generate and commit them.\n")
    assert all((clone / name).read_text() != text for name, text in before.items())

    written = generate(clone)

    assert written.returncode == 0, written.stderr
    assert {name: (clone / name).read_text() for name in names} == before
    assert generate(clone, "--check").returncode == 0


def test_a_generator_that_fails_leaves_its_file_alone(clone: Path) -> None:
    (clone / ".venv/bin/mcpctl").write_text("#!/bin/sh\nexit 3\n")
    before = (clone / "docs/tools.md").read_text()

    done = generate(clone)

    assert done.returncode == 3
    assert (clone / "docs/tools.md").read_text() == before


def test_an_unknown_option_is_refused(clone: Path) -> None:
    done = generate(clone, "--chekc")

    assert (done.returncode, done.stdout) == (2, "")
    assert "usage: scripts/generate [--check]" in done.stderr
