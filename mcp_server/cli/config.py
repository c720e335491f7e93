"""`mcpctl config`: check the configuration file, and encrypt its secrets."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click

from mcp_server.cli.options import config_option, fail, plain_errors
from mcp_server.settings import (
    EncryptionSettings,
    Secret,
    Settings,
    SettingsError,
    load_settings,
    secrets_of,
)

__all__ = ["config"]


@click.group()
def config() -> None:
    """Check the configuration file, and encrypt its secrets."""


@config.command("check")
@config_option
@click.option(
    "--read-secrets",
    is_flag=True,
    help="Read and decrypt every secret too, as the server does; it has to run where the server runs.",
)
@click.option(
    "--no-plain-secrets",
    is_flag=True,
    help="Refuse secrets that stand in the file as readable text.",
)
@plain_errors
def config_check(config: Path, *, read_secrets: bool, no_plain_secrets: bool) -> None:
    """Check the configuration file; without --read-secrets, no secret is read."""
    settings = load_settings(config)
    faults = []
    for path, secret in secrets_of(settings):
        place = ".".join(path)
        if no_plain_secrets and secret.plain:
            faults.append(
                f"{config}: {place}: the secret is readable text; accepted are file, credential and "
                "encrypted (mcpctl config encrypt)"
            )
        if read_secrets:
            try:
                secret.reveal()
            except SettingsError as error:
                faults.append(f"{config}: {place}: {error}")
    if faults:
        raise SettingsError("\n".join(faults))
    click.echo(f"{config}: valid configuration of node {settings.node}")


@config.command("schema")
def config_schema() -> None:
    """Print the JSON Schema of the configuration file."""
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Settings.model_json_schema(),
    }
    click.echo(json.dumps(schema, indent=2, ensure_ascii=False))


def _key_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that name a password or a random key; the command gets them as `given`."""

    @wraps(command)
    def with_source(**options: Any) -> None:
        sources = {
            name: options.pop(name)
            for name in ("password_file", "password_credential", "key_file", "key_credential")
        }
        given = {name: value for name, value in sources.items() if value is not None}
        if len(given) > 1:
            fail("give one of --password-file, --password-credential, --key-file, --key-credential")
        command(**options, given=_encryption(*given.popitem()) if given else None)

    for option in (
        click.option(
            "--key-credential", help="Name of the systemd credential with the random key."
        ),
        click.option(
            "--key-file",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            help="File with a random key: openssl rand -base64 32.",
        ),
        click.option(
            "--password-credential", help="Name of the systemd credential with the password."
        ),
        click.option(
            "--password-file",
            type=click.Path(exists=True, dir_okay=False, path_type=Path),
            help="File with a password of at least 12 characters.",
        ),
    ):
        with_source = option(with_source)
    return with_source


def _encryption(option: str, value: Path | str) -> EncryptionSettings:
    from mcp_server.settings.encryption import new_salt  # noqa: PLC0415

    kind, _, form = option.partition("_")
    source: Any = {form: str(value.absolute()) if isinstance(value, Path) else value}
    salt = new_salt() if kind == "password" else None
    try:
        return EncryptionSettings.model_validate({kind: Secret(**source), "salt": salt})
    except ValueError:
        fail(f"{value} is no name of a credential")


@config.command()
@config_option
@_key_options
@plain_errors
def encrypt(config: Path, given: EncryptionSettings | None) -> None:
    """Encrypt all secrets that stand in the file as readable text; nothing else in it changes.

    The first time, one of the options names the key. The file has its name from then on (section
    `encryption`).
    """
    from mcp_server.cli.config_file import encrypted, write_in_place  # noqa: PLC0415
    from mcp_server.settings.document import read_document  # noqa: PLC0415

    document = read_document(config)
    text, places = encrypted(document, given)
    if not places:
        click.echo(f"{config}: no secret is readable text; nothing changed")
        return
    write_in_place(config, text)
    click.echo(f"{config}: encrypted {', '.join(places)}")


@config.command("rotate-key")
@config_option
@_key_options
@plain_errors
def rotate_key(config: Path, given: EncryptionSettings | None) -> None:
    """Encrypt all encrypted secrets again, with another password or key.

    Running nodes keep the secrets that they have read. They read the file again when they restart.
    """
    from mcp_server.cli.config_file import rotated, write_in_place  # noqa: PLC0415
    from mcp_server.settings.document import read_document  # noqa: PLC0415

    if given is None:
        fail(
            "name the new key: --password-file, --password-credential, --key-file, --key-credential"
        )
    text, places = rotated(read_document(config), given)
    write_in_place(config, text)
    click.echo(f"{config}: encrypted again with the new key: {', '.join(places)}")
