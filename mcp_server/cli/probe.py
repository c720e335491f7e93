"""`mcpctl probe`: the health of the node on this host."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import click

from mcp_server.cli.options import config_option, fail, plain_errors
from mcp_server.settings import load_settings

__all__ = ["probe"]


@click.command()
@config_option
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=5.0,
    show_default=True,
    help="Seconds for one answer.",
)
@click.option(
    "--wait",
    "wait_s",
    type=click.FloatRange(min=0),
    default=0.0,
    metavar="SECONDS",
    help="Ask again until the answer is good, for so long.  [default: ask once]",
)
@click.option("--revision", help="Good only when the node decides by this policy revision.")
@plain_errors
def probe(*, config: Path, timeout: float, wait_s: float, revision: str | None) -> None:
    """Ask the running node of this host how it is; print JSON; status 0 when it is ready."""
    from mcp_server.health.probe import ProbeFailed, shortcoming, wait_until_good  # noqa: PLC0415

    settings = load_settings(config)
    try:
        answer = asyncio.run(
            wait_until_good(settings.telemetry, wait_s=wait_s, timeout_s=timeout, revision=revision)
        )
        fault = shortcoming(answer, revision)
    except ProbeFailed as error:
        fault = f"none, {error}"
        answer = {"ready": False, "error": str(error)}
    click.echo(json.dumps(answer, sort_keys=True))
    if fault is not None:
        waited = f" after {wait_s:g} s" if wait_s else ""
        fail(f"not ready{waited}. Last answer: {fault}")
