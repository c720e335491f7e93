"""scripts/build_opa builds for the architecture that it is asked for, and keeps what it built.

fake_go stands for the compiler, except in the last test. It does not prove that OPA can be built:
scripts/bootstrap builds it.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts/build_opa"
MODULE = ROOT / "scripts/opa_build"


def version() -> str:
    """Return the version of OPA that is built."""
    found = re.search(r"github.com/open-policy-agent/opa v(\S+)", (MODULE / "go.mod").read_text())
    assert found is not None
    return found[1]


def fake_go(folder: Path, *, fails: bool = False) -> Path:
    """Write a go that notes what it is asked to build, and writes what it was told to."""
    program = folder / "bin" / "go"
    program.parent.mkdir()
    asked = folder / "asked"
    program.write_text(
        f"""#!/bin/sh
case "$1 $2" in
  "env GOVERSION") echo go1.99.0 ;;
  build*)
    echo "$PWD $GOOS/$GOARCH cgo=$CGO_ENABLED ${{GOBIN-no}} ${{GOFLAGS-no}} $2" >>{asked}
    while [ "$1" != -o ]; do shift; done
    echo "$3 for $GOARCH" >"$2"
    chmod +x "$2"
    exit {int(fails)} ;;
esac
"""
    )
    program.chmod(0o755)
    return asked


def build(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(SCRIPT), *arguments],
        env=os.environ
        | {
            "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
            "XDG_CACHE_HOME": str(folder / "cache"),
            "GOBIN": "/somewhere/else",
            "GOFLAGS": "-mod=mod",
        },
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("architecture", ["amd64", "arm64"])
def test_the_binary_of_an_architecture_is_built_once_and_kept_with_its_checksum(
    tmp_path: Path, architecture: str
) -> None:
    asked = fake_go(tmp_path)

    first, second = build(tmp_path, architecture), build(tmp_path, architecture)

    binary = tmp_path / f"cache/enterprise-mcp/bin/opa-{version()}-{architecture}"
    assert first.returncode == 0, first.stderr
    assert [first.stdout, second.stdout] == [f"{binary}\n", f"{binary}\n"]
    assert binary.read_text() == f"github.com/open-policy-agent/opa for {architecture}\n"
    assert os.access(binary, os.X_OK)
    recorded = binary.with_name(f"{binary.name}.sha256").read_text().split()
    assert recorded == [hashlib.sha256(binary.read_bytes()).hexdigest(), binary.name]
    built = f"{MODULE} linux/{architecture} cgo=0 no no -mod=readonly"
    assert asked.read_text().splitlines() == [built]


def test_a_build_that_failed_leaves_no_binary(tmp_path: Path) -> None:
    fake_go(tmp_path, fails=True)

    done = build(tmp_path, "arm64")

    assert done.returncode != 0
    assert [*(tmp_path / "cache").rglob("opa*")] == []


def test_a_module_with_another_checksum_is_not_built(tmp_path: Path) -> None:
    """The real compiler, in a copy of the module whose go.sum expects another source of OPA."""
    copy = shutil.copytree(MODULE, tmp_path / "module")
    pinned = (copy / "go.sum").read_text()
    line = re.search(r"^github.com/open-policy-agent/opa v\S+ h1:(.*)$", pinned, re.MULTILINE)
    assert line is not None
    (copy / "go.sum").write_text(pinned.replace(line[1], "A" * 43 + "="))
    go = subprocess.run([str(ROOT / "scripts/find_go")], capture_output=True, text=True, check=True)

    done = subprocess.run(
        [go.stdout.strip(), "list", "-mod=readonly", "-deps", "github.com/open-policy-agent/opa"],
        cwd=copy,
        env=os.environ | {"GOFLAGS": "", "GOTOOLCHAIN": "local"},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode != 0
    assert "checksum mismatch" in done.stderr
