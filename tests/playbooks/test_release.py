"""roles/mcp_server/files/build_release.py: what makes a new release, and which wheels are in one.

The real program and the real pip, with a folder of small wheels in place of a package index.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "roles/mcp_server/files/build_release.py"


@dataclass(frozen=True)
class Release:
    """What the program made."""

    name: str
    archive: Path
    changed: bool

    @property
    def wheels(self) -> set[str]:
        """Names of the wheels, the project's own left out."""
        with tarfile.open(self.archive) as tar:
            names = {name for name in tar.getnames() if name.endswith(".whl")}
        return {name for name in names if not name.startswith("enterprise_mcp-")}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the project: what a release is made of, and policyctl, which is not part of it."""
    copy = tmp_path / "project"
    ignored = shutil.ignore_patterns("__pycache__")
    for folder in ("mcp_server", "policyctl"):
        shutil.copytree(ROOT / folder, copy / folder, ignore=ignored)
    for name in ("LICENSE", "README.md", "pyproject.toml"):
        shutil.copyfile(ROOT / name, copy / name)
    return copy


@pytest.fixture
def index(tmp_path: Path) -> Path:
    folder = tmp_path / "index"
    folder.mkdir()
    return folder


def wheel(index: Path, name: str) -> Path:
    """Put a wheel without content into the index; name is that of the file."""
    project, version, *_ = name.split("-")
    about = f"{project}-{version}.dist-info"
    path = index / f"{name}.whl"
    with zipfile.ZipFile(path, "w") as content:
        content.writestr(
            f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {project}\nVersion: {version}\n"
        )
        content.writestr(f"{about}/WHEEL", f"Wheel-Version: 1.0\nTag: {name.split('-', 2)[2]}\n")
        content.writestr(f"{about}/RECORD", "")
    return path


def pin(*wheels: Path) -> str:
    """Return the hashes of wheels as a lock file names them."""
    return " ".join(
        f"--hash=sha256:{hashlib.sha256(each.read_bytes()).hexdigest()}" for each in wheels
    )


Build = Callable[..., Release]
Program = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def program(project: Path, index: Path, cache: Path, tmp_path: Path) -> Program:
    """Run the program for a target."""

    def run(
        lock: str = "", python: str = "3.13", machine: str = "x86_64"
    ) -> subprocess.CompletedProcess[str]:
        (tmp_path / "server.lock").write_text(lock)
        return subprocess.run(
            [
                *(sys.executable, str(PROGRAM), f"--source={project}", f"--cache={cache}"),
                *(f"--lock={tmp_path / 'server.lock'}", f"--python={python}"),
                f"--machine={machine}",
            ],
            env=os.environ | {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(index)},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


@pytest.fixture
def build(program: Program) -> Build:
    """Build a release of the project for a target."""

    def run(*arguments: str, **target: str) -> Release:
        done = program(*arguments, **target)
        assert done.returncode == 0, done.stderr
        said = json.loads(done.stdout)
        return Release(said["name"], Path(said["archive"]), said["changed"])

    return run


class TestName:
    """A new name is a new release, and that restarts every node."""

    def edit(self, path: Path, old: str, new: str) -> None:
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))

    def test_the_same_sources_make_the_same_release_once(self, build: Build) -> None:
        first, second = build(), build()

        assert first.name == second.name
        assert re.fullmatch(r"\d+\.\d+\.\d+-[0-9a-f]{12}", first.name)
        assert not second.changed

    @pytest.mark.parametrize(
        ("file", "old", "new"),
        [
            ("README.md", "# Enterprise MCP", "# Another title"),
            ("LICENSE", "Apache License", "Apache license"),
            ("pyproject.toml", "line-length = 100", "line-length = 99"),
            ("pyproject.toml", 'description = "', 'description = "In other words: '),
            ("pyproject.toml", 'keywords = ["mcp"', 'keywords = ["mcp", "audit"'),
            ("policyctl/pyproject.toml", 'version = "', 'version = "9'),
            ("policyctl/src/policyctl/opa.py", 'OPA_VERSION = "', 'OPA_VERSION = "9'),
        ],
    )
    def test_what_is_for_readers_and_developers_makes_no_new_release(
        self, build: Build, project: Path, file: str, old: str, new: str
    ) -> None:
        before = build()
        self.edit(project / file, old, new)

        after = build()

        assert after.name == before.name
        assert not after.changed

    @pytest.mark.parametrize(
        ("file", "old", "new"),
        [
            ("mcp_server/__init__.py", "", "# another byte\n"),
            ("pyproject.toml", 'version = "', 'version = "9'),
            ("pyproject.toml", '"aiohttp>=3.14,<4"', '"aiohttp>=3.13,<4"'),
            ("pyproject.toml", 'mcpctl = "', 'mcpctl2 = "'),
        ],
    )
    def test_what_decides_how_the_server_behaves_makes_one(
        self, build: Build, project: Path, file: str, old: str, new: str
    ) -> None:
        before = build()
        self.edit(project / file, old, new)

        assert build().name != before.name

    def test_another_lock_and_another_target_make_one(self, build: Build, index: Path) -> None:
        lock = f"pure==1 {pin(wheel(index, 'pure-1-py3-none-any'))}\n"

        names = {
            build().name,
            build(lock).name,
            build(lock, machine="aarch64").name,
            build(lock, python="3.11").name,
        }

        assert len(names) == 4


class TestTargets:
    """A host gets the wheels of its own Python and architecture, and of no newer C library."""

    @pytest.fixture
    def lock(self, index: Path) -> str:
        pure = wheel(index, "pure-1-py3-none-any")
        compiled = [
            wheel(index, f"compiled-1-cp{python}-cp{python}-{platform}")
            for python in ("311", "313")
            for platform in (
                "manylinux_2_17_x86_64.manylinux2014_x86_64",
                "manylinux_2_17_aarch64.manylinux2014_aarch64",
                "manylinux_2_39_aarch64",
                "musllinux_1_2_aarch64",
                "win_arm64",
            )
        ]
        stable = [
            wheel(index, f"stable-1-cp39-abi3-manylinux_2_34_{machine}")
            for machine in ("x86_64", "aarch64")
        ]
        intel = wheel(index, "intel-1-py3-none-manylinux_2_17_x86_64")
        return (
            f"pure==1 {pin(pure)}\ncompiled==1 {pin(*compiled)}\nstable==1 {pin(*stable)}\n"
            f"intel==1 ; platform_machine == 'x86_64' {pin(intel)}\n"
        )

    @pytest.mark.parametrize(("python", "tag"), [("3.11", "cp311"), ("3.13", "cp313")])
    def test_an_arm64_host_gets_wheels_for_arm64(
        self, build: Build, lock: str, python: str, tag: str
    ) -> None:
        assert build(lock, python=python, machine="aarch64").wheels == {
            "pure-1-py3-none-any.whl",
            f"compiled-1-{tag}-{tag}-manylinux_2_17_aarch64.manylinux2014_aarch64.whl",
            "stable-1-cp39-abi3-manylinux_2_34_aarch64.whl",
        }

    def test_an_x86_host_gets_wheels_for_x86(self, build: Build, lock: str) -> None:
        assert build(lock, machine="x86_64").wheels == {
            "pure-1-py3-none-any.whl",
            "compiled-1-cp313-cp313-manylinux_2_17_x86_64.manylinux2014_x86_64.whl",
            "stable-1-cp39-abi3-manylinux_2_34_x86_64.whl",
            "intel-1-py3-none-manylinux_2_17_x86_64.whl",
        }

    @pytest.mark.parametrize("platform", ["manylinux_2_17_x86_64", "manylinux_2_37_aarch64"])
    def test_a_requirement_without_a_wheel_for_the_host_is_named(
        self, program: Program, index: Path, platform: str
    ) -> None:
        only = wheel(index, f"only-1-cp313-cp313-{platform}")

        done = program(f"only==1 {pin(only)}\n", machine="aarch64")

        assert done.returncode != 0
        assert "No matching distribution found for only==1" in done.stderr
