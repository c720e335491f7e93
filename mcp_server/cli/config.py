"""`mcpctl config`: the configuration file."""

from __future__ import annotations

import json
from pathlib import Path

import click

from mcp_server.cli.options import config_option, plain_errors
from mcp_server.settings import Settings, load_settings

__all__ = ["config"]


@click.group()
def config() -> None:
    """Look at the configuration."""


@config.command("check")
@config_option
@plain_errors
def config_check(config: Path) -> None:
    """Check the configuration file; secrets are not read."""
    settings = load_settings(config)
    click.echo(f"{config}: valid configuration of node {settings.node}")


@config.command("schema")
def config_schema() -> None:
    """Print the JSON Schema of the configuration file."""
    click.echo(json.dumps(Settings.model_json_schema(), indent=2))
