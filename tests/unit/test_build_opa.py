"""scripts/build_opa builds for the architecture that it is asked for, and keeps what it built.

fake_go stands for the compiler: that the real one builds OPA is for scripts/bootstrap.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts/build_opa"


def pinned(name: str) -> str:
    """Return a constant of the script."""
    found = re.search(rf"^readonly {name}='?([^'\n]+)'?$", SCRIPT.read_text(), re.MULTILINE)
    assert found is not None
    return found[1]


def fake_go(folder: Path, source_sum: str) -> Path:
    """Write a go that notes what it is asked to build, and puts it where a cross build is put.

    What it builds was made of a source with this checksum.
    """
    program = folder / "bin" / "go"
    program.parent.mkdir()
    asked = folder / "asked"
    program.write_text(
        f"""#!/bin/sh
case "$1 $2" in
  "env GOVERSION") echo go1.99.0 ;;
  "env GOMODCACHE") echo {folder}/modules ;;
  install*)
    echo "$GOOS/$GOARCH cgo=$CGO_ENABLED gobin=${{GOBIN-unset}} $4" >>{asked}
    mkdir -p "$GOPATH/bin/${{GOOS}}_$GOARCH"
    echo "opa for $GOARCH" >"$GOPATH/bin/${{GOOS}}_$GOARCH/opa" ;;
  "version -m") echo "dep github.com/open-policy-agent/opa {source_sum}" ;;
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
        },
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("architecture", ["amd64", "arm64"])
def test_the_binary_of_an_architecture_is_built_once_and_kept_with_its_checksum(
    tmp_path: Path, architecture: str
) -> None:
    asked = fake_go(tmp_path, pinned("source_sum"))
    version = pinned("version")

    first, second = build(tmp_path, architecture), build(tmp_path, architecture)

    binary = tmp_path / f"cache/enterprise-mcp/bin/opa-{version}-{architecture}"
    assert first.returncode == 0, first.stderr
    assert [first.stdout, second.stdout] == [f"{binary}\n", f"{binary}\n"]
    assert binary.read_text() == f"opa for {architecture}\n"
    assert os.access(binary, os.X_OK)
    recorded = binary.with_name(f"{binary.name}.sha256").read_text().split()
    assert recorded == [hashlib.sha256(binary.read_bytes()).hexdigest(), binary.name]
    module = f"github.com/open-policy-agent/opa@v{version}"
    assert asked.read_text().splitlines() == [f"linux/{architecture} cgo=0 gobin=unset {module}"]


def test_a_binary_of_another_source_is_not_kept(tmp_path: Path) -> None:
    fake_go(tmp_path, "h1:another=")

    done = build(tmp_path, "arm64")

    assert done.returncode != 0
    assert "is not the one that is pinned" in done.stderr
    assert [*(tmp_path / "cache").rglob("opa-*")] == []
