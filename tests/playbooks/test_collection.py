"""The plugins of enterprise.mcp: which variables are known, and how secrets come to be."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.plays import ROOT, run_play

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run tasks as one play on an inventory of two hosts, in a folder of its own."""

    def play(
        *tasks: dict[str, object],
        variables: dict[str, object] | None = None,
        arguments: tuple[str, ...] = (),
    ) -> subprocess.CompletedProcess[str]:
        inventory = {
            "all": {
                "hosts": {"a1": {}, "b1": {}},
                "vars": {"ansible_connection": "local", **(variables or {})},
            }
        }
        return run_play(tmp_path, list(tasks), *arguments, inventory=inventory)

    return play


def make_secrets(directory: Path) -> dict[str, object]:
    return {
        "enterprise.mcp.generated_secrets": {
            "directory": str(directory),
            "secrets": [
                {"name": "redis_password"},
                {"name": "signing_key", "kind": "ec_private_key", "public": "verification_key"},
            ],
        },
        "run_once": True,
    }


def show_secret(name: str) -> dict[str, object]:
    return {
        "ansible.builtin.debug": {
            "msg": f"value={{{{ lookup('enterprise.mcp.secret', '{name}') }}}}"
        }
    }


def describe(tmp_path: Path, role: str, *variables: str) -> Path:
    """Write a role that knows these variables, and return the folder of roles."""
    spec = tmp_path / "roles" / role / "meta" / "argument_specs.yml"
    spec.parent.mkdir(parents=True)
    options = {name: {"type": "raw"} for name in variables}
    spec.write_text(yaml.safe_dump({"argument_specs": {"main": {"options": options}}}))
    return tmp_path / "roles"


@pytest.fixture
def roles(tmp_path: Path) -> Path:
    """A folder with one role, redis, that knows the variable redis_port."""
    return describe(tmp_path, "redis", "redis_port")


def known_variables(roles: Path) -> dict[str, object]:
    return {"enterprise.mcp.known_variables": {"roles_path": str(roles)}, "run_once": True}


def test_a_mistyped_variable_fails_and_names_the_nearest_known_one(run: Run, roles: Path) -> None:
    result = run(known_variables(roles), variables={"redis_prot": 6379})

    assert result.returncode != 0
    assert (
        "redis_prot (on a1, b1) is not a variable of any role; did you mean redis_port?"
        in result.stdout
    )


def test_a_mistyped_variable_on_the_command_line_fails_as_well(run: Run, roles: Path) -> None:
    result = run(known_variables(roles), arguments=("-e", "redis_ports=1"))

    assert "did you mean redis_port?" in result.stdout
    assert result.returncode != 0


def test_a_variable_that_resembles_nothing_is_named_alone(run: Run, roles: Path) -> None:
    result = run(known_variables(roles), variables={"redis_zzzzzzzzzzzzzzzzzz": 1})

    assert result.returncode != 0
    assert "redis_zzzzzzzzzzzzzzzzzz (on a1, b1) is not a variable of any role." in result.stdout


def test_of_the_names_that_begin_with_a_mistyped_one_the_shortest_is_the_nearest(
    run: Run, tmp_path: Path
) -> None:
    names = ["nginx_tls_key", "nginx_tls_certificate", "nginx_tls_certificate_chain"]
    roles = describe(tmp_path, "nginx", *names)

    result = run(known_variables(roles), variables={"nginx_tls_cert": "x"})

    assert "did you mean nginx_tls_certificate?" in result.stdout


def test_variables_with_the_name_of_their_role_misspelt_are_refused(run: Run) -> None:
    meant = {
        "mcp_servers_memory_max": "mcp_server_memory_max",
        "mcpserver_memory_max": "mcp_server_memory_max",
        "mcp-server_memory_max": "mcp_server_memory_max",
        "mcp__server_memory_max": "mcp_server_memory_max",
        "mpc_server_memory_max": "mcp_server_memory_max",
        "mcp_servers_memory_mxa": "mcp_server_memory_max",
        "mcp_serverport": "mcp_server_port",
        "postgresql_port": "postgres_port",
        "prometheous_port": "prometheus_port",
        "ngnix_tls_key": "nginx_tls_key",
        "reids_port": "redis_port",
        "nodeexporter_port": "node_exporter_port",
        "secret_redis_password": "secrets_redis_password",
    }

    result = run(known_variables(ROOT / "roles"), variables=dict.fromkeys(meant, 22))

    assert result.returncode != 0
    for name, nearest in meant.items():
        said = f"{name} (on a1, b1) is not a variable of any role; did you mean {nearest}?"
        assert said in result.stdout


def test_names_that_are_only_like_those_of_roles_pass(run: Run) -> None:
    own = [
        *("company_mcp_server_notes", "my_mcp_server_port", "vault_mcp_server_jwt_secret"),
        *("our_mcp_server_settings", "x_redis_port", "vault_redis_password"),
        *("mcp_servers", "mcp_servers_extra", "mcp_server", "mcp_memory_max", "mcp_port"),
        *("lb_state", "database_domain", "data_port", "prom_port", "ansible_port"),
    ]

    result = run(known_variables(ROOT / "roles"), variables=dict.fromkeys(own, 22))

    assert result.returncode == 0, result.stdout


def test_known_foreign_and_internal_variables_pass(run: Run, roles: Path) -> None:
    result = run(
        known_variables(roles),
        variables={"redis_port": 1, "redisport": 1, "company_site": "x", "__redis_x": 1},
    )

    assert result.returncode == 0, result.stdout


def test_every_role_of_the_repository_describes_its_defaults() -> None:
    for path in sorted(ROOT.glob("roles/*/defaults/main.yml")):
        specs = yaml.safe_load((path.parents[1] / "meta" / "argument_specs.yml").read_text())[
            "argument_specs"
        ]
        described = {name for spec in specs.values() for name in spec.get("options") or {}}
        assert set(yaml.safe_load(path.read_text()) or {}) <= described, path


def test_secrets_are_made_once_and_only_their_owner_can_read_them(run: Run, tmp_path: Path) -> None:
    state = tmp_path / ".state" / "secrets"

    first = run(make_secrets(state))
    made = {path.name: path.read_bytes() for path in state.iterdir()}
    second = run(make_secrets(state))

    assert "changed=1" in first.stdout, first.stdout
    assert "changed=0" in second.stdout
    assert made == {path.name: path.read_bytes() for path in state.iterdir()}
    assert sorted(made) == ["redis_password", "signing_key", "verification_key"]
    assert len(made["redis_password"]) >= 43
    # Nothing below the topmost new directory gets into a repository.
    assert (tmp_path / ".state" / ".gitignore").read_text() == "*\n"
    assert state.stat().st_mode & 0o777 == 0o700
    assert (state / "redis_password").stat().st_mode & 0o777 == 0o600
    assert (state / "signing_key").stat().st_mode & 0o777 == 0o600


def test_check_mode_makes_no_secret_and_reads_a_placeholder(run: Run, tmp_path: Path) -> None:
    state = tmp_path / ".state" / "secrets"

    result = run(make_secrets(state), show_secret("redis_password"), arguments=("--check",))

    assert result.returncode == 0, result.stdout
    assert "value=not-made-yet-this-is-what-check-mode-shows" in result.stdout
    assert not state.exists()


def test_a_secret_is_read_from_its_file(run: Run, tmp_path: Path) -> None:
    result = run(make_secrets(tmp_path / ".state" / "secrets"), show_secret("redis_password"))

    password = (tmp_path / ".state" / "secrets" / "redis_password").read_text()
    assert f"value={password}" in result.stdout


def test_a_variable_wins_and_no_file_is_made_for_it(run: Run, tmp_path: Path) -> None:
    state = tmp_path / ".state" / "secrets"

    result = run(
        make_secrets(state),
        show_secret("redis_password"),
        variables={"secrets_redis_password": "{{ chosen }}", "chosen": "by the operator"},
    )

    assert "value=by the operator" in result.stdout
    assert not (state / "redis_password").exists()


def test_an_empty_variable_counts_as_not_given(run: Run, tmp_path: Path) -> None:
    result = run(
        make_secrets(tmp_path / ".state" / "secrets"), variables={"secrets_redis_password": ""}
    )

    assert result.returncode == 0, result.stdout
    assert (tmp_path / ".state" / "secrets" / "redis_password").exists()


def test_a_missing_secret_names_the_playbook_that_makes_it(run: Run) -> None:
    result = run(show_secret("redis_password"))

    assert result.returncode != 0
    assert (
        "set secrets_redis_password, or run playbooks/secrets.yml" in result.stdout + result.stderr
    )


def test_with_a_vault_password_secrets_are_encrypted_and_still_readable(
    run: Run, tmp_path: Path
) -> None:
    vault = tmp_path / "vault-password"
    vault.write_text("open sesame")
    state = tmp_path / ".state" / "secrets"

    result = run(
        make_secrets(state),
        show_secret("redis_password"),
        arguments=("--vault-password-file", str(vault)),
    )

    assert (state / "redis_password").read_text().startswith("$ANSIBLE_VAULT;")
    assert (state / "signing_key").read_text().startswith("$ANSIBLE_VAULT;")
    assert (state / "verification_key").read_text().startswith("-----BEGIN PUBLIC KEY-----")
    assert "value=" in result.stdout
    assert "value=$ANSIBLE_VAULT" not in result.stdout
