"""`mcpctl audit`: read the audit log, on a node, on behalf of the subject of a token.

OPA decides about each reading (method `audit/read`), and the audit log records it before the first row
is shown. The rows are read by a database role of its own, which can do nothing else.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args

import click

from mcp_server.audit.formats import FORMATS, json_text
from mcp_server.audit.record import Effect, Outcome, Phase
from mcp_server.audit.search import GROUPS, Filter, count, stream
from mcp_server.cli.audit_reading import Access, new_rows, read, write
from mcp_server.cli.options import config_option, database_ca_option, fail, plain_errors
from mcp_server.settings import load_settings

if TYPE_CHECKING:
    import asyncpg

__all__ = ["Time", "audit"]

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_F = TypeVar("_F", bound=Callable[..., Any])


@click.group()
def audit() -> None:
    """The audit log.

    Run it on a node, as root. Every command needs a token of the reader, whose roles the policy judges,
    and the password of the database role that reads. Without --tenant or --all-tenants the rows of the
    reader's own tenant are read.
    """


class Time(click.ParamType[datetime]):
    """A time: RFC 3339 (UTC without an offset), or how long ago: 90s, 15m, 2h, 7d."""

    name = "time"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime:
        if isinstance(value, datetime):
            return value
        if ago := re.fullmatch(r"(\d{1,6})([smhd])", value):
            return datetime.now(UTC) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        try:
            time = datetime.fromisoformat(value)
        except ValueError:
            self.fail(
                f"{value!r} is no time; write 2026-11-30, 2026-11-30T08:00:00Z or how long ago: "
                "90s, 15m, 2h, 7d",
                param,
                ctx,
            )
        return time if time.tzinfo else time.replace(tzinfo=UTC)


class _Network(click.ParamType[IPv4Network | IPv6Network]):
    """An address or a CIDR block."""

    name = "address"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> IPv4Network | IPv6Network:
        try:
            return ip_network(value)
        except ValueError as error:
            self.fail(f"{error}; write an address or a CIDR block", param, ctx)


_FILTERS = (
    click.option("--since", type=Time(), default="24h", show_default=True, help="First time."),
    click.option("--until", type=Time(), help="First time that is not included."),
    click.option("--user"),
    click.option("--tenant", help="[default: the reader's own]"),
    click.option("--tool", help="Policy name of a tool or resource, such as cmdb:query_assets."),
    click.option("--method", help="Such as tools/call or sign_in."),
    click.option("--effect", type=click.Choice(get_args(Effect)), help="What the policy decided."),
    click.option("--outcome", type=click.Choice(get_args(Outcome)), help="How the request ended."),
    click.option("--phase", type=click.Choice([phase.value for phase in Phase])),
    click.option("--reason", help="Code of a reason, such as not_available."),
    click.option("--request-id"),
    click.option("--node"),
    click.option("--client", type=_Network(), help="Address or CIDR block of the client."),
)
_ACCESS = (
    click.option("--all-tenants", is_flag=True, help="Read the rows of all tenants."),
    click.option(
        "--token-file",
        required=True,
        envvar="MCP_TOKEN_FILE",
        show_envvar=True,
        type=click.Path(path_type=Path),
        help="File with the bearer token of the reader.",
    ),
    click.option(
        "--role", default="mcp_auditor", show_default=True, help="Database role that reads."
    ),
    click.option(
        "--password-file",
        required=True,
        envvar="MCP_AUDITOR_PASSWORD_FILE",
        show_envvar=True,
        type=click.Path(path_type=Path),
        help="File with its password (/dev/stdin works).",
    ),
    config_option,
    database_ca_option,
)


def _reader(*options: Callable[[Any], Any]) -> Callable[[_F], _F]:
    """Add the options of a command that reads; the shared ones arrive as `access` and `which`."""

    def decorate(command: _F) -> _F:
        @plain_errors
        def wrapped(**given: Any) -> None:
            access = Access(**{name: given.pop(name) for name in Access.__slots__})
            which = Filter(**{name: given.pop(name) for name in Filter.__slots__ if name in given})
            if access.all_tenants and which.tenant is not None:
                fail("--tenant and --all-tenants exclude each other")
            command(access, which, **given)

        wrapped.__doc__ = command.__doc__
        wrapped.__name__ = command.__name__
        for option in reversed((*options, *_ACCESS)):
            wrapped = option(wrapped)
        return wrapped  # type: ignore[return-value] # click takes any callable

    return decorate


def _format_option(default: str) -> Callable[[Any], Any]:
    return click.option(
        "--output", type=click.Choice(list(FORMATS)), default=default, show_default=True
    )


@audit.command()
@_reader(
    *_FILTERS,
    click.option("--limit", type=click.IntRange(1, 100_000), default=100, show_default=True),
    _format_option("table"),
)
def search(access: Access, which: Filter, *, limit: int, output: str) -> None:
    """Show the newest rows that match every given option."""

    async def work(connection: asyncpg.Connection, judged: Filter) -> None:
        await write(stream(connection, judged, order="newest", limit=limit), output)

    read(access, which, work)


@audit.command()
@_reader(*_FILTERS, _format_option("json"))
def export(access: Access, which: Filter, *, output: str) -> None:
    """Write all matching rows, the oldest first, one on a line."""

    async def work(connection: asyncpg.Connection, judged: Filter) -> None:
        await write(stream(connection, judged), output)

    read(access, which, work)


@audit.command()
@_reader(click.argument("request_id"))
def show(access: Access, which: Filter) -> None:
    """Show every row of a request in full, as indented JSON."""

    async def work(connection: asyncpg.Connection, judged: Filter) -> None:
        found = False
        async for row in stream(connection, judged):
            found = True
            click.echo(json.dumps(json.loads(json_text(row)), indent=2))
        if not found:
            message = f"no row of request {which.request_id} among those that you may read"
            if not access.all_tenants:
                message += "; --all-tenants reads those of other tenants and of none too"
            click.echo(message, err=True)

    read(access, which, work)


@audit.command()
@_reader(
    *_FILTERS,
    click.option("--lines", type=click.IntRange(1, 10_000), default=10, show_default=True),
    click.option("--follow", "-f", is_flag=True, help="Go on with new rows until Ctrl-C."),
    _format_option("table"),
)
def tail(access: Access, which: Filter, *, lines: int, follow: bool, output: str) -> None:
    """Show the last rows in the order of their time."""

    async def work(connection: asyncpg.Connection, judged: Filter) -> None:
        newest = [row async for row in stream(connection, judged, order="newest", limit=lines)]
        await write(_each(newest[::-1]), output)
        if follow:
            await write(new_rows(connection, judged, newest), output, header=False)

    read(access, which, work)


@audit.command()
@_reader(
    *_FILTERS,
    click.option("--by", type=click.Choice(list(GROUPS)), default="tool", show_default=True),
    click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True),
    click.option("--output", type=click.Choice(["table", "json"]), default="table"),
)
def stats(access: Access, which: Filter, *, by: str, limit: int, output: str) -> None:
    """Count the matching rows by one property, with the median and the 95th percentile of their time."""

    async def work(connection: asyncpg.Connection, judged: Filter) -> None:
        counted = await count(connection, judged, by, limit=limit)
        if output == "json":
            for row in counted:
                click.echo(json_text(row))
            return
        click.echo(f"{'ROWS':>10}  {'P50 MS':>9}  {'P95 MS':>9}  {by.upper()}")
        for row in counted:
            times = (f"{row[name] or 0:9.1f}" for name in ("p50_ms", "p95_ms"))
            click.echo(f"{row['rows']:>10}  {'  '.join(times)}  {json.dumps(row[by])[1:-1] or '-'}")

    read(access, which, work)


@audit.command()
@_reader(
    click.option(
        "--heads",
        "directories",
        multiple=True,
        type=click.Path(exists=True, file_okay=False, path_type=Path),
        help="Directory with signed heads; repeatable.  [default: audit.heads of this node]",
    ),
    click.option(
        "--public-key",
        "public_keys",
        multiple=True,
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        help="Public key (PEM) of a node that signed them; repeatable.  [default: this node's]",
    ),
    click.option(
        "--retention-days",
        type=click.IntRange(1),
        default=90,
        show_default=True,
        help="Rows of older days may be gone (postgres_audit_retention_days).",
    ),
    click.option("--output", type=click.Choice(["text", "json"]), default="text"),
)
def verify(
    access: Access,
    which: Filter,
    *,
    directories: tuple[Path, ...],
    public_keys: tuple[Path, ...],
    retention_days: int,
    output: str,
) -> None:
    """Verify that no row was changed, removed, inserted or reordered.

    Exits with status 1 if it finds something. Rows of nodes whose signed heads are not given are
    verified in themselves only. It reads the rows of all tenants: as with --all-tenants.
    """
    from mcp_server.audit import verify as verification  # noqa: PLC0415
    from mcp_server.audit.heads import (  # noqa: PLC0415
        Head,
        public_key_of,
        read_heads,
        read_public_key,
    )

    settings = load_settings(access.config).audit
    try:
        keys = [read_public_key(file.read_bytes()) for file in public_keys]
        if not public_keys and settings.signing_key is not None:
            keys.append(public_key_of(settings.signing_key.reveal()))
        if not directories and settings.heads is not None:
            directories = (settings.heads,)
        heads = list(read_heads(directories, keys))
    except (OSError, ValueError) as error:
        fail(f"cannot read the signed heads or their keys: {error}")
    invalid = [
        verification.Finding("invalid_head", str(head))
        for head in heads
        if not isinstance(head, Head)
    ]
    report = verification.Report()

    async def work(connection: asyncpg.Connection, _: Filter) -> None:
        nonlocal report
        report = await verification.verify(
            connection,
            [head for head in heads if isinstance(head, Head)],
            retention_days=retention_days,
        )

    read(replace(access, all_tenants=True), which, work)
    report.findings.extend(invalid)
    if output == "json":
        click.echo(json_text(asdict(report)))
    else:
        for each in report.findings:
            place = " ".join(filter(None, (each.day, each.node, each.chain)))
            click.echo(f"{each.kind}: {place}{': ' if place else ''}{each.message}")
        click.echo(
            f"{report.rows} rows in {report.chains} chains, {report.heads} signed heads; "
            f"{report.unsigned} rows after the last head, {report.expired} expired chains; "
            f"{len(report.findings)} findings"
        )
    if report.findings:
        sys.exit(1)


async def _each(rows: list[dict[str, Any]]) -> AsyncIterator[dict[str, Any]]:
    for row in rows:
        yield row
