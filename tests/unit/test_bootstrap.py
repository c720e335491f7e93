"""What scripts/bootstrap installs on a production controller and on a developer's machine.

fake_uv and fake_dpkg_query record their arguments; every run of scripts/bootstrap shows that the real
programs install what they are told.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Names the distributions that a program of the repository imports; argv: the program and its arguments.
_IMPORTED = """
import json, runpy, sys
from importlib import metadata
program, *sys.argv[1:] = sys.argv[1:]
try:
    if program.endswith(".py"):
        runpy.run_path(program, run_name="__main__")
    else:
        runpy.run_module(program, run_name="__main__")
except SystemExit as end:
    assert not end.code, end.code
owners = metadata.packages_distributions()
tops = {name.partition(".")[0] for name in sys.modules}
print(json.dumps(sorted({owner for top in tops for owner in owners.get(top, ())})))
"""


def locked(name: str) -> dict[str, str]:
    """Return the requirements of a lock file by name, each with its version and hashes.

    Markers are left out: they also depend on which other requirement needs the distribution.
    """
    text = (ROOT / "requirements" / name).read_text().replace("\\\n", " ")
    text = re.sub(r" ; .*?(?= --hash=)", "", text)
    lines = [line for line in text.splitlines() if re.match(r"[a-z0-9]", line)]
    return {line.partition("==")[0].partition("[")[0]: " ".join(line.split()) for line in lines}


class TestControllerLock:
    def test_it_is_a_subset_of_what_developers_test_with(self) -> None:
        controller, developer = locked("controller.lock"), locked("dev.lock")

        assert controller.items() <= developer.items()
        assert {"ansible", "ansible-core", "mitogen"} <= controller.keys()

    def test_it_has_no_tools_of_developers(self) -> None:
        tools = {"ansible-lint", "hypothesis", "molecule", "mypy", "pytest", "ruff", "yamllint"}

        assert tools <= locked("dev.lock").keys()
        assert not tools & locked("controller.lock").keys()

    @pytest.mark.parametrize(
        "command",
        [
            "policyctl lint",
            "roles/mcp_server/files/build_release.py --help",
            "mcp_server token --user=a --role=r --issuer=https://x --audience=x --secret-file={secret}",
        ],
        ids=lambda command: command.split()[0],
    )
    def test_it_has_what_the_programs_of_a_controller_import(
        self, command: str, tmp_path: Path
    ) -> None:
        secret = tmp_path / "secret"
        secret.write_text("unit-tests-only-0123456789-0123456789")

        done = subprocess.run(
            [sys.executable, "-c", _IMPORTED, *command.format(secret=secret).split()],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )

        assert done.returncode == 0, done.stderr
        imported = {
            name.lower().replace("_", "-") for name in json.loads(done.stdout.split("\n")[-2])
        }
        own = {"enterprise-mcp", "enterprise-mcp-policyctl"}
        assert imported - own <= locked("controller.lock").keys()


@dataclass(frozen=True)
class Machine:
    """A clone of the repository, and the records of what was asked for."""

    clone: Path
    bin: Path
    cache: Path

    def bootstrap(self, *arguments: str) -> None:
        done = subprocess.run(
            [str(self.clone / "scripts/bootstrap"), *arguments],
            env=os.environ
            | {"PATH": f"{self.bin}:{os.environ['PATH']}", "XDG_CACHE_HOME": str(self.cache)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    @property
    def packages(self) -> set[str]:
        """The Debian packages that were looked for."""
        return set((self.bin / "packages").read_text().split())

    @property
    def installed(self) -> list[str]:
        """The commands of uv."""
        return (self.bin / "uv-commands").read_text().splitlines()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A machine on which every Debian package and OPA is there."""
    clone, programs, cache = tmp_path / "clone", tmp_path / "bin", tmp_path / "cache"
    for folder in ("scripts", "requirements"):
        shutil.copytree(ROOT / folder, clone / folder)
    for name in ("pyproject.toml", "policyctl/pyproject.toml"):
        (clone / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, clone / name)
    (clone / ".venv").mkdir()
    uv = cache / "enterprise-mcp/uv"
    (uv / "bin").mkdir(parents=True)
    shutil.copy(ROOT / "requirements/uv.lock", uv / ".lock")
    programs.mkdir()
    fake_dpkg_query = f"""#!/bin/sh
shift 3
echo "$@" >{programs}/packages
for name; do echo "$name installed"; done
"""
    fake_uv = f'#!/bin/sh\necho "$*" >>{programs}/uv-commands\n'
    for path, text in (
        (programs / "dpkg-query", fake_dpkg_query),
        (uv / "bin/uv", fake_uv),
        (clone / "scripts/build_opa", "#!/bin/sh\n"),
    ):
        path.write_text(text)
        path.chmod(0o755)
    return Machine(clone, programs, cache)


def test_a_controller_gets_ansible_and_policyctl_without_the_lab_and_the_linters(
    machine: Machine,
) -> None:
    machine.bootstrap("--controller")

    assert {"openssh-client", "python3-venv"} <= machine.packages
    assert not {"podman", "mmdebstrap", "postgresql", "shellcheck"} & machine.packages
    assert machine.installed[-2:] == [
        "pip sync --quiet --require-hashes requirements/controller.lock",
        "pip install --quiet --no-deps --no-build-isolation --editable . --editable ./policyctl",
    ]


def test_a_developer_gets_all_that_a_controller_gets_and_the_lab(machine: Machine) -> None:
    machine.bootstrap("--controller")
    of_a_controller = machine.packages

    machine.bootstrap()

    assert machine.packages > of_a_controller | {"podman"}
    assert machine.installed[-2] == "pip sync --quiet --require-hashes requirements/dev.lock"
