"""A release on a host can be executed by the server's account, whatever umask root has there."""

from __future__ import annotations

import hashlib
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.plays import LOCAL, role_of, run_play

ABOUT = "small-1.dist-info"
WHEEL = {
    "small/__init__.py": "def main():\n    print('it runs')\n",
    f"{ABOUT}/METADATA": "Metadata-Version: 2.1\nName: small\nVersion: 1\n",
    f"{ABOUT}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    f"{ABOUT}/entry_points.txt": "[console_scripts]\nmcpctl = small:main\n",
    f"{ABOUT}/RECORD": "",
}


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    """A release as the controller ships it, of one small wheel."""
    wheel, listed = tmp_path / "small-1-py3-none-any.whl", tmp_path / "requirements.txt"
    with zipfile.ZipFile(wheel, "w") as content:
        for name, text in WHEEL.items():
            content.writestr(name, text)
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    listed.write_text(f"small==1 --hash=sha256:{digest}\n")
    path = tmp_path / "release.tar"
    with tarfile.open(path, "w") as tar:
        for each in (wheel, listed):
            tar.add(each, each.name)
    return path


@pytest.mark.parametrize("umask", [0o022, 0o077], ids=oct)
def test_everybody_can_read_and_execute_it(tmp_path: Path, archive: Path, umask: int) -> None:
    release = tmp_path / "releases/r1"
    done = run_play(
        tmp_path,
        [role_of("mcp_server", "release")],
        inventory={"mcp_servers": {"hosts": {"mcp1": LOCAL}}},
        variables={
            "__mcp_server_archive": str(archive),
            "__mcp_server_release": "r1",
            "__mcp_server_release_dir": str(release),
        },
        as_root=True,
        umask=umask,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert (release / ".complete").exists()
    assert {path.name for path in release.rglob("mcpctl")} == {"mcpctl"}
    assert [path.parent.name for path in release.rglob("small/**/*.pyc")] == ["__pycache__"]
    for path in release.rglob("*"):
        mode = stat.S_IMODE(path.lstat().st_mode)
        if path.is_symlink():
            continue
        wanted = 0o755 if path.is_dir() or mode & 0o100 else 0o644
        assert oct(mode) == oct(wanted), path
