"""scripts/token and scripts/demo in a copy of the repository that has only what they need.

fake_ansible_playbook stands for the runs that make and remove hosts: that those do their work is for
`make demo`, `make down` and tests/deploy.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from mcp_server.identity import SharedSecret, Verifier
from mcp_server.settings import JwtSettings, Secret

ROOT = Path(__file__).resolve().parents[2]
STATE = Path("inventories/lab/.state")
ORIGIN = "https://192.0.2.10"


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A repository without a lab."""
    for folder in ("scripts", "inventories", "policies"):
        ignored = shutil.ignore_patterns(".state", "__pycache__")
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=ignored)
    programs = tmp_path / ".venv/bin"
    programs.mkdir(parents=True)
    (tmp_path / ".venv/lib/python3.11/site-packages/ansible_mitogen/plugins/strategy").mkdir(
        parents=True
    )
    for name in ("mcpctl", "ansible-inventory"):
        (programs / name).symlink_to(Path(sys.executable).with_name(name))
    return tmp_path


@pytest.fixture
def lab(clone: Path) -> Path:
    """What make demo leaves behind."""
    secrets, pki = clone / STATE / "secrets", clone / STATE / "pki"
    secrets.mkdir(parents=True)
    pki.mkdir()
    (secrets / "jwt_secret").write_text("unit-tests-only-0123456789-0123456789")
    (pki / "ca.pem").write_text("a certificate")
    (clone / ".lab").mkdir()
    connection = {"mcp_url": f"{ORIGIN}/mcp", "rest_url": ORIGIN}
    (clone / ".lab/connection.json").write_text(json.dumps(connection))
    return clone


def fake_ansible_playbook(repository: Path, status: int) -> Path:
    """Put a program in place that notes its arguments and ends with this status; return the notes."""
    program, notes = repository / ".venv/bin/ansible-playbook", repository / "asked"
    program.write_text(f'#!/bin/sh\necho "$*" >>{notes}\nexit {status}\n')
    program.chmod(0o755)
    return notes


def run(repository: Path, *command: str) -> subprocess.CompletedProcess[str]:
    # From elsewhere: the scripts find their repository themselves.
    return subprocess.run(
        [str(repository / command[0]), *command[1:]],
        cwd="/",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


class TestToken:
    def test_the_output_is_a_token_that_the_servers_accept_and_nothing_else(
        self, lab: Path
    ) -> None:
        done = run(lab, "scripts/token", "alice", "mcp:viewer,mcp:operator", "acme")

        settings = JwtSettings(
            secret=Secret(file=lab / STATE / "secrets/jwt_secret"),
            issuer=ORIGIN,
            audience=f"{ORIGIN}/mcp",
        )
        verifier = Verifier([SharedSecret(settings)])
        subject = asyncio.run(verifier.verify(done.stdout.removesuffix("\n")))
        assert done.stderr == ""
        assert (subject.id, subject.tenant) == ("alice", "acme")
        assert subject.roles == ("mcp:operator", "mcp:viewer")

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (("alice", ""), "accepted are names without spaces and commas, such as mcp:viewer"),
            (("alice", "mcp:viewer,,mcp:admin"), "'' is no name of a role"),
            (("alice", "mcp:viewer mcp:admin"), "'mcp:viewer mcp:admin' is no name of a role"),
            (("", "mcp:viewer"), "USER= is missing, for example: make -s token USER=alice"),
            (("a" * 257, "mcp:viewer"), "sub must be a string of 1 to 256 characters"),
            (("a\tb", "mcp:viewer"), "sub holds characters that cannot be printed"),
            (("alice", "mcp:viewer", "t" * 257), "tenant must be a string of 1 to 256 characters"),
            (("alice",), "usage: scripts/token USER ROLE"),
        ],
    )
    def test_what_no_server_would_accept_is_an_error_that_says_what_is(
        self, lab: Path, arguments: tuple[str, ...], said: str
    ) -> None:
        done = run(lab, "scripts/token", *arguments)

        assert done.returncode != 0
        assert done.stdout == ""
        assert said in done.stderr

    def test_make_without_a_user_says_what_is_missing(self, lab: Path) -> None:
        done = subprocess.run(
            ["make", "-s", "-C", lab, "-f", ROOT / "Makefile", "token"],
            env={name: value for name, value in os.environ.items() if name != "USER"},
            capture_output=True,
            text=True,
            check=False,
        )

        assert done.returncode != 0
        assert done.stdout == ""
        assert "USER= is missing, for example: make -s token USER=alice" in done.stderr

    def test_a_role_that_the_policies_do_not_name_is_noted_beside_the_token(
        self, lab: Path
    ) -> None:
        done = run(lab, "scripts/token", "alice", "mcp:viewr")

        assert done.returncode == 0
        assert done.stdout.count(".") == 2
        named = "mcp:viewer, mcp:operator, mcp:auditor, mcp:admin"
        assert f"names no mcp:viewr; it names {named}" in done.stderr

    def test_a_secret_that_comes_through_a_pipe_is_read_once(self, lab: Path) -> None:
        options = ("--user=alice", "--role=mcp:viewer", f"--issuer={ORIGIN}", "--audience=a")
        done = subprocess.run(
            [lab / ".venv/bin/mcpctl", "token", *options, "--secret-file=/dev/stdin"],
            input="unit-tests-only-0123456789-0123456789",
            capture_output=True,
            text=True,
            check=False,
        )

        assert done.returncode == 0, done.stderr
        assert done.stdout.count(".") == 2

    def test_without_a_lab_it_says_what_to_do(self, clone: Path) -> None:
        done = run(clone, "scripts/token", "alice", "mcp:viewer")

        assert done.returncode == 1
        assert done.stdout == ""
        assert "make demo" in done.stderr


class TestDemo:
    def test_the_connection_is_told_with_paths_from_the_root_of_the_repository(
        self, lab: Path
    ) -> None:
        script = lab / "scripts/demo"
        subprocess.run(["bash", "-c", f"source {script} && write_connection"], check=True, cwd="/")

        connection = json.loads((lab / ".lab/connection.json").read_text())
        address = "10.91.0.10"
        assert connection == {
            "mcp_url": f"https://{address}/mcp",
            "rest_url": f"https://{address}",
            "ca_file": ".lab/ca.pem",
            "ssh_config": ".lab/ssh_config",
        }
        assert (lab / connection["ca_file"]).read_text() == "a certificate"

    def test_down_removes_the_hosts_and_then_what_was_kept_of_them(self, lab: Path) -> None:
        asked = fake_ansible_playbook(lab, 0)

        done = run(lab, "scripts/demo", "--down")

        assert done.returncode == 0, done.stderr
        assert "-i inventories/lab" in asked.read_text()
        assert asked.read_text().endswith("playbooks/lab.yml -e lab_state=absent\n")
        assert not (lab / ".lab").exists()
        assert not (lab / STATE).exists()
        assert (lab / "inventories/lab/hosts.yml").exists()

    def test_down_says_what_stays_and_how_to_remove_it(self, lab: Path) -> None:
        fake_ansible_playbook(lab, 0)

        done = run(lab, "scripts/demo", "--down")

        cache = os.environ.get("XDG_CACHE_HOME") or f"{os.environ['HOME']}/.cache"
        image = yaml.safe_load((ROOT / "roles/lab/vars/main.yml").read_text())["__lab_image"]
        assert f"rm -rf .venv {cache}/enterprise-mcp " in done.stdout
        assert f"podman images --quiet {image.partition(':')[0]} |" in done.stdout
        assert "Debian packages" in done.stdout

    def test_down_keeps_the_keys_of_hosts_that_it_could_not_remove(self, lab: Path) -> None:
        fake_ansible_playbook(lab, 2)

        done = run(lab, "scripts/demo", "--down")

        assert done.returncode == 2
        assert (lab / ".lab").exists()
        assert (lab / STATE).exists()

    @pytest.mark.parametrize("arguments", [("--dwon",), ("--down", "now")])
    def test_an_unknown_argument_changes_nothing(
        self, lab: Path, arguments: tuple[str, ...]
    ) -> None:
        asked = fake_ansible_playbook(lab, 0)

        done = run(lab, "scripts/demo", *arguments)

        assert done.returncode == 2
        assert "usage: scripts/demo [--down]" in done.stderr
        assert not asked.exists()
        assert (lab / ".lab").exists()


def test_two_preparations_of_one_machine_wait_for_each_other(tmp_path: Path) -> None:
    cache = tmp_path / "enterprise-mcp"
    cache.mkdir()
    with (cache / "bootstrap.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        process = subprocess.Popen(
            [ROOT / "scripts/bootstrap", "--wrong"],
            env={**os.environ, "XDG_CACHE_HOME": str(tmp_path)},
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stderr is not None
        first = process.stderr.readline()
        assert "another bootstrap is running" in first
        assert process.poll() is None

        fcntl.flock(lock, fcntl.LOCK_UN)
        _, rest = process.communicate(timeout=180)

    assert process.returncode == 2
    assert "unknown option --wrong" in rest
