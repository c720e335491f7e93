"""Secrets in the configuration file: their forms, and `mcpctl config encrypt` and `rotate-key`."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml
from click.testing import CliRunner, Result

from mcp_server.cli import main
from mcp_server.settings import Secret, Settings, SettingsError, load_settings, secrets_of
from tests.policies import ROOT

PASSWORD = "correct horse battery staple"
DATABASE, SIGNING, GRAFANA, CLUSTER = (
    "pg-s3cret",
    "jwt-s3cret".ljust(32, "x"),
    "gl-s3cret",
    "k8-s3cret",
)
CONFIG = f"""\
# yaml-language-server: $schema=settings.schema.json
node:   mcp1        # the name of this node
public_url: https://mcp.example.com

identity:
    jwt:
        secret: "{SIGNING}"   # signs tokens
        issuer: i
        audience: a
database:
  # where the audit is
  host: localhost
  password: {DATABASE}  # of mcp_server

counters: {{url: redis://localhost, password: {{file: /run/redis}}}}
tools:
  monitoring:
    prometheus_url: https://prometheus.example.com
    alertmanager_url: https://alertmanager.example.com
    grafana:
      url: https://grafana.example.com
      token: |
        {GRAFANA}
      # the data source
      datasource_uid: prom
  kubernetes:
    clusters:
      "lab.one": {{url: https://k8s, token: '{CLUSTER}', ca: /ca}}
"""
PLAIN = {
    "identity.jwt.secret": SIGNING,
    "database.password": DATABASE,
    "tools.monitoring.grafana.token": f"{GRAFANA}\n",
    "tools.kubernetes.clusters.lab.one.token": CLUSTER,
}


@pytest.fixture(autouse=True)
def _cheap_derivation(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make a key cost less; the test with a process of its own has the real cost."""
    monkeypatch.setattr("mcp_server.settings.encryption._SCRYPT_N", 2**4)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    path.write_text(CONFIG)
    path.chmod(0o640)
    return path


@pytest.fixture
def password(tmp_path: Path) -> Path:
    path = tmp_path / "password"
    path.write_text(f"{PASSWORD}\n")
    return path


def random_key(tmp_path: Path, name: str = "key") -> Path:
    path = tmp_path / name
    path.write_text(base64.b64encode(os.urandom(32)).decode() + "\n")
    return path


def run(*arguments: str | Path, **environment: str) -> Result:
    return CliRunner().invoke(main, ["config", *map(str, arguments)], env=environment)


def encrypt(config: Path, *options: str | Path) -> str:
    done = run("encrypt", "--config", config, *options)
    assert done.exit_code == 0, done.output
    return done.output


def revealed(settings: Settings) -> dict[str, str]:
    return {
        ".".join(path): secret.reveal()
        for path, secret in secrets_of(settings)
        if secret.plain or secret.encrypted
    }


def test_all_plain_secrets_are_encrypted_and_the_server_reads_the_same(
    config: Path, password: Path
) -> None:
    said = encrypt(config, "--password-file", password)

    text = config.read_text()
    assert not [secret for secret in (DATABASE, SIGNING, GRAFANA, CLUSTER) if secret in text]
    assert "tools.kubernetes.clusters.lab.one.token" in said
    assert "s3cret" not in said
    assert revealed(load_settings(config)) == PLAIN
    assert not any(secret.plain for _, secret in secrets_of(load_settings(config)))


def test_everything_else_in_the_file_stays_as_it_is(config: Path, password: Path) -> None:
    encrypt(config, "--password-file", password)

    before = CONFIG.replace(f"|\n        {GRAFANA}", GRAFANA).splitlines()
    after = config.read_text().splitlines()
    changed = [old for old, new in zip(before, after, strict=False) if old != new]
    assert [line.split(":")[0].strip() for line in changed] == [
        "secret", "password", "token", '"lab.one"',
    ]  # fmt: skip
    assert after[len(before) :] == [after[-1]]
    assert after[-1].startswith(f'encryption: {{password: {{file: "{password}"}}, salt: "')
    assert "  # signs tokens" in config.read_text()
    assert ", ca: /ca}" in config.read_text()
    assert config.stat().st_mode & 0o777 == 0o640


def test_a_second_run_changes_nothing(config: Path, password: Path) -> None:
    encrypt(config, "--password-file", password)
    before = config.read_text()

    assert "nothing changed" in encrypt(config)
    assert config.read_text() == before


def test_a_secret_that_is_added_later_gets_the_same_key(config: Path, password: Path) -> None:
    encrypt(config, "--password-file", password)
    config.write_text(
        config.read_text().replace("password: {file: /run/redis}", "password: redis-s3cret")
    )

    assert "counters.password" in encrypt(config)
    assert revealed(load_settings(config)) == {**PLAIN, "counters.password": "redis-s3cret"}


def test_a_random_key_of_a_credential_works(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    random_key(tmp_path, "config_key")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))

    encrypt(config, "--key-credential", "config_key")

    assert config.read_text().endswith('encryption: {key: {credential: "config_key"}}\n')
    assert revealed(load_settings(config)) == PLAIN
    monkeypatch.delenv("CREDENTIALS_DIRECTORY")
    with pytest.raises(SettingsError, match="CREDENTIALS_DIRECTORY is not set"):
        revealed(load_settings(config))


def test_a_wrong_password_is_an_error_that_names_the_secret(config: Path, password: Path) -> None:
    encrypt(config, "--password-file", password)
    password.write_text("another password\n")

    done = run("check", "--read-secrets", "--config", config)

    assert done.exit_code == 1
    assert "database.password: the secret database.password cannot be decrypted" in done.output
    assert "another password or key" in done.output
    assert "another password\n" not in done.output


def test_changed_ciphertext_is_an_error(config: Path, password: Path) -> None:
    encrypt(config, "--password-file", password)
    secret = load_settings(config).database.password
    assert secret is not None
    assert secret.encrypted is not None
    token = secret.encrypted
    changed = token[:40] + ("A" if token[40] != "A" else "B") + token[41:]
    config.write_text(config.read_text().replace(token, changed))

    changed_secret = load_settings(config).database.password
    assert changed_secret is not None
    with pytest.raises(SettingsError, match=r"database\.password cannot be decrypted"):
        changed_secret.reveal()


@pytest.mark.parametrize("to", ["password", "key"])
def test_a_key_is_rotated(config: Path, password: Path, tmp_path: Path, to: str) -> None:
    encrypt(config, "--password-file", password)
    before = config.read_text()
    new = random_key(tmp_path, "new")

    done = run("rotate-key", "--config", config, f"--{to}-file", new)

    assert done.exit_code == 0, done.output
    password.unlink()
    assert revealed(load_settings(config)) == PLAIN
    assert str(new) in config.read_text()
    pairs = zip(before.splitlines(), config.read_text().splitlines(), strict=True)
    assert sum(old != new for old, new in pairs) == len(PLAIN) + 1


def test_a_section_written_by_hand_can_be_rotated(config: Path, password: Path) -> None:
    encrypt(config, "--password-file", password)
    salt = config.read_text().rpartition('salt: "')[2].partition('"')[0]
    text = config.read_text().rpartition("encryption:")[0]
    section = f"encryption:\n  password:\n    file: {password}\n  salt: {salt}\n"
    config.write_text(section + "# the end of the section\n" + text)

    done = run("rotate-key", "--config", config, "--password-file", password)

    assert done.exit_code == 0, done.output
    assert "\n# the end of the section\n# yaml-language-server" in config.read_text()
    assert salt not in config.read_text()
    assert revealed(load_settings(config)) == PLAIN


def test_rotation_with_a_wrong_password_changes_nothing(
    config: Path, password: Path, tmp_path: Path
) -> None:
    encrypt(config, "--password-file", password)
    before = config.read_text()
    password.write_text("another password\n")

    done = run("rotate-key", "--config", config, "--key-file", random_key(tmp_path))

    assert done.exit_code == 1
    assert "cannot be decrypted" in done.output
    assert config.read_text() == before


def test_a_kill_in_the_middle_leaves_the_old_file(config: Path, password: Path) -> None:
    killed_while_renaming = (
        "import os, signal, pathlib, sys\n"
        "pathlib.Path.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "from mcp_server.cli import main\n"
        "main(sys.argv[1:])\n"
    )
    arguments = ["config", "encrypt", "--config", str(config), "--password-file", str(password)]

    done = subprocess.run(
        [sys.executable, "-c", killed_while_renaming, *arguments], check=False, capture_output=True
    )

    assert done.returncode == -signal.SIGKILL
    assert config.read_text() == CONFIG
    (left,) = config.parent.glob(".config.yaml.*")
    assert "s3cret" not in left.read_text()
    assert left.stat().st_mode & 0o777 == 0o640
    encrypt(config, "--password-file", password)
    assert revealed(load_settings(config)) == PLAIN


def test_the_file_behind_a_link_is_changed(config: Path, password: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.yaml"
    link.symlink_to(config)

    encrypt(link, "--password-file", password)

    assert link.is_symlink()
    assert DATABASE not in config.read_text()


def test_one_secret_in_two_places_by_an_alias_is_encrypted_once(
    config: Path, password: Path
) -> None:
    config.write_text(
        config.read_text().replace(
            "    grafana:",
            "    prometheus: &access {token: shared-s3cret}\n    alertmanager: *access\n    grafana:",
        )
    )

    encrypt(config, "--password-file", password)

    found = revealed(load_settings(config))
    assert found["tools.monitoring.prometheus.token"] == "shared-s3cret"
    assert found["tools.monitoring.alertmanager.token"] == "shared-s3cret"


@pytest.mark.parametrize(
    ("arguments", "change", "said"),
    [
        ([], ("", ""), "has no section encryption: name a key"),
        (["--password-file", "short"], ("", ""), "has fewer than 12 characters"),
        (["--key-file", "short"], ("", ""), "must be 32 random bytes in base64"),
        (["--key-credential", "../key"], ("", ""), "../key is no name of a credential"),
        (
            ["--key-credential", "key", "--password-file", "short"],
            ("", ""),
            "give one of --password-file",
        ),
        (
            ["--password-file", "good"],
            (f"password: {DATABASE}", f"password: &it {DATABASE}"),
            "database.password has an anchor or a tag; write",
        ),
        (["--password-file", "good"], ("node:", "nodes:"), "nodes is not a setting"),
    ],
)
def test_what_cannot_be_encrypted_is_an_error_and_the_file_stays(
    config: Path, tmp_path: Path, arguments: list[str], change: tuple[str, str], said: str
) -> None:
    (tmp_path / "short").write_text("too short\n")
    (tmp_path / "good").write_text(PASSWORD)
    config.write_text(CONFIG.replace(*change))
    before = config.read_text()
    paths = [str(tmp_path / each) if each in {"short", "good"} else each for each in arguments]

    done = run("encrypt", "--config", config, *paths)

    assert done.exit_code == 1
    assert said in done.output
    assert "s3cret" not in done.output
    assert config.read_text() == before


def test_a_key_is_not_replaced_by_accident(config: Path, password: Path, tmp_path: Path) -> None:
    encrypt(config, "--password-file", password)

    done = run("encrypt", "--config", config, "--key-file", random_key(tmp_path))

    assert done.exit_code == 1
    assert "use mcpctl config rotate-key" in done.output


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ("", "is encrypted, and there is no section encryption"),
        ("encryption: {}", "needs exactly one of password and key"),
        ("encryption: {password: {file: /p}}", "salt belongs to password"),
        ("encryption: {key: {file: /p}, salt: x}", "salt belongs to password"),
        ("encryption: {password: {file: /p}, salt: c2hvcnQ=}", "salt must be at least 16 random"),
        ("encryption: {key: in the clear}", "password and key must be a file or a credential"),
    ],
)
def test_a_section_that_names_no_key_is_refused(config: Path, section: str, said: str) -> None:
    config.write_text(CONFIG.replace(DATABASE, "{encrypted: gAAAA}") + section)

    with pytest.raises(SettingsError, match=said):
        load_settings(config)


def test_the_path_of_the_configuration_comes_from_the_environment(config: Path) -> None:
    done = run("check", MCP_CONFIG_PATH=str(config))

    assert done.output == f"{config}: valid configuration of node mcp1\n"


def test_readable_secrets_can_be_refused(config: Path, password: Path) -> None:
    done = run("check", "--no-plain-secrets", "--config", config)

    assert done.exit_code == 1
    assert "database.password: the secret is readable text; accepted are file" in done.output
    assert "s3cret" not in done.output
    encrypt(config, "--password-file", password)
    assert run("check", "--no-plain-secrets", "--config", config).exit_code == 0


def test_secrets_are_read_only_if_asked_to(config: Path) -> None:
    assert run("check", "--config", config).exit_code == 0

    done = run("check", "--read-secrets", "--config", config)

    assert done.exit_code == 1
    assert "counters.password: cannot read the secret file /run/redis" in done.output


@pytest.mark.parametrize(
    "given", [12345, "", [], {}, {"file": "/a", "credential": "b"}, None, True]
)
def test_other_forms_of_a_secret_are_refused(given: object) -> None:
    with pytest.raises(ValueError, match="secret is text in quotes, or a mapping with one of"):
        Secret.model_validate(given)


@pytest.mark.parametrize("name", ["../key", "a/b", "", ".", "..", ".hidden"])
def test_a_credential_is_a_name_and_no_path(name: str) -> None:
    with pytest.raises(ValueError, match="credential"):
        Secret(credential=name)


def test_no_text_of_a_secret_is_in_its_representation() -> None:
    assert "hunter2" not in repr(Secret.model_validate("hunter2"))
    assert "hunter2" not in str(Secret.model_validate("hunter2"))


def test_the_published_schema_has_all_forms_of_a_secret() -> None:
    schema = json.loads((ROOT / "docs/settings.schema.json").read_text())
    document = yaml.safe_load(CONFIG)
    validator = jsonschema.Draft202012Validator(schema)

    def faults(password: object) -> list[str]:
        changed = {**document, "database": {**document["database"], "password": password}}
        return [error.json_path for error in validator.iter_errors(changed)]

    forms: list[object] = ["text", {"file": "/f"}, {"credential": "c"}, {"encrypted": "gAAAA"}]
    assert [faults(form) for form in forms] == [[]] * len(forms)
    assert faults({}) == faults(1) == faults({"path": "/f"}) == ["$.database.password"]
