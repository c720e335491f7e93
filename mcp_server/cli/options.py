"""Options and error handling that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import NoReturn, ParamSpec, TypeVar

import click

from mcp_server.settings import DatabaseSettings, SettingsError

__all__ = ["config_option", "database_ca_option", "database_settings", "fail", "plain_errors"]

_P = ParamSpec("_P")
_T = TypeVar("_T")


def fail(message: object) -> NoReturn:
    """Print the message on standard error, without a stack trace, and exit with status 1."""
    raise click.ClickException(str(message))


def plain_errors(command: Callable[_P, _T]) -> Callable[_P, _T]:
    """Report an error of the configuration as a message, without a stack trace."""

    @wraps(command)
    def wrapped(*args: _P.args, **kwargs: _P.kwargs) -> _T:
        try:
            return command(*args, **kwargs)
        except SettingsError as error:
            fail(error)

    return wrapped


config_option = click.option(
    "--config",
    "config",
    envvar="MCP_CONFIG_PATH",
    type=click.Path(path_type=Path),
    default=Path("/etc/mcp_server/config.yaml"),
    show_default=True,
    show_envvar=True,
    help="Configuration file (YAML).",
)

database_ca_option = click.option(
    "--database-ca",
    type=click.Path(path_type=Path),
    help="CA of the database's certificate (PEM).  [default: database.ca of the configuration]",
)


def database_settings(settings: DatabaseSettings, ca: Path | None) -> DatabaseSettings:
    """Return the settings of the database, with another CA if `ca` is given."""
    return settings if ca is None else settings.model_copy(update={"ca": ca})
