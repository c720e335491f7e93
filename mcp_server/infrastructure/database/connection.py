"""PostgreSQL: one asyncpg pool, deadlines on every call, one error type.

Opening the pool makes no connection: a server whose database is down starts, reports that it is not
ready, and works as soon as PostgreSQL is back.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from typing import Any, Literal

import asyncpg

from mcp_server.infrastructure.tls import client_context, renewed_client_context
from mcp_server.settings import DatabaseSettings

__all__ = ["CommitUnknown", "Database", "DatabaseUnavailable", "commit_refused", "connect"]

# Errors that mean "the database cannot serve us now", unlike "this statement is wrong". OSError covers
# refused connections, TLS failures and timeouts; InterfaceError covers closed connections.
_UNAVAILABLE = (
    OSError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.PostgresConnectionError,
    asyncpg.exceptions.OperatorInterventionError,
    asyncpg.exceptions.InsufficientResourcesError,
    asyncpg.exceptions.InvalidAuthorizationSpecificationError,
    asyncpg.exceptions.InvalidCatalogNameError,
)
_NO_SCHEMA = (
    asyncpg.exceptions.UndefinedTableError,
    asyncpg.exceptions.UndefinedColumnError,
    asyncpg.exceptions.InvalidSchemaNameError,
)


class DatabaseUnavailable(Exception):
    """PostgreSQL cannot serve the call now; the message says where and why."""


class CommitUnknown(DatabaseUnavailable):
    """A commit was sent, and its result is unknown."""


class Database:
    """A pool of connections to one PostgreSQL database.

    Args:
        settings: address, role, CA (verify-full when set), pool size and the deadline of a call.
    """

    def __init__(self, settings: DatabaseSettings) -> None:
        self._settings = settings
        self._pool: asyncpg.Pool | None = None

    @property
    def timeout_s(self) -> float:
        """The deadline of a call in seconds."""
        return self._settings.timeout_s

    async def start(self) -> None:
        """Open the pool without connecting.

        Raises:
            SettingsError: the file of the password or of the CA cannot be used.
        """
        if self._pool is not None:
            return
        arguments = _connect_arguments(self._settings)
        context = renewed_client_context(self._settings.ca) if self._settings.ca else None

        async def connect(*dsn: Any, **options: Any) -> asyncpg.Connection:
            return await asyncpg.connect(*dsn, **options, ssl=context() if context else False)

        self._pool = await asyncpg.create_pool(
            **arguments,
            connect=connect,
            min_size=0,
            max_size=self._settings.pool_max,
            reset=_keep_session,
        )

    async def stop(self) -> None:
        """Close all connections; a busy connection is aborted after the deadline of a call."""
        pool, self._pool = self._pool, None
        if pool is None:
            return
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                await pool.close()
        except TimeoutError:
            pool.terminate()

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[asyncpg.Connection]:
        """Lend a connection; acquiring it and each statement have the deadline of a call.

        Do not leave session state behind (SET, LISTEN, session advisory locks): nothing resets it. A
        connection whose user was cancelled or timed out is closed, because the state of the session is
        unknown.

        Raises:
            DatabaseUnavailable: no connection was free in time, or the connection was lost.
        """
        pool = self._pool
        if pool is None:
            raise DatabaseUnavailable("the connection pool to PostgreSQL is not open")
        try:
            connection = await pool.acquire(timeout=self._settings.timeout_s)
        except _UNAVAILABLE as error:
            raise _unavailable(self._settings, error) from error
        try:
            yield connection
        except _NO_SCHEMA as error:
            raise DatabaseUnavailable(
                f"{_place(self._settings)} lacks a table or a column that this version needs ({error}); "
                "run `mcpctl db upgrade`"
            ) from error
        except _UNAVAILABLE as error:
            _cut(connection)
            # The other idle connections are most likely lost too: replace them.
            await pool.expire_connections()
            raise _unavailable(self._settings, error) from error
        except (asyncio.CancelledError, GeneratorExit):
            _cut(connection)
            raise
        finally:
            with contextlib.suppress(*_UNAVAILABLE):
                await pool.release(connection, timeout=self._settings.timeout_s)

    @contextlib.asynccontextmanager
    async def transaction(
        self,
        *,
        readonly: bool = False,
        isolation: Literal["read_committed", "repeatable_read", "serializable"] = "read_committed",
        within_s: float | None = None,
    ) -> AsyncIterator[asyncpg.Connection]:
        """Lend a connection inside a transaction that commits when the block succeeds.

        The whole block, including the wait for a connection and the commit, has the deadline of a call,
        or `within_s` seconds if that is less.

        Raises:
            DatabaseUnavailable: as for `connection`, or the deadline passed; nothing is committed.
            CommitUnknown: the connection was lost, or the deadline passed, during the commit.
        """
        deadline_s = self._settings.timeout_s
        if within_s is not None:
            deadline_s = min(deadline_s, within_s)
        committing = False
        try:
            async with asyncio.timeout(deadline_s), self.connection() as connection:
                transaction = connection.transaction(readonly=readonly, isolation=isolation)
                await transaction.start()
                try:
                    yield connection
                except _UNAVAILABLE:  # `connection` closes it, which rolls back
                    raise
                except Exception:
                    await transaction.rollback()
                    raise
                committing = True
                await transaction.commit()
        except TimeoutError as error:
            why = _unavailable(self._settings, error)
            raise (CommitUnknown(str(why)) if committing else why) from error
        except DatabaseUnavailable as error:
            if committing and not commit_refused(error.__cause__):
                raise CommitUnknown(str(error)) from error
            raise


async def connect(
    settings: DatabaseSettings,
    *,
    user: str | None = None,
    password: str | None = None,
    statement_timeout_s: float | None = None,
) -> asyncpg.Connection:
    """Open one connection outside any pool, for commands such as migrations and imports.

    Args:
        settings: address and TLS settings of the database.
        user: role to log in as instead of the server's own.
        password: its password.
        statement_timeout_s: deadline of each statement, instead of the settings' `timeout_s`.

    Raises:
        DatabaseUnavailable: the connection could not be made.
    """
    if user is not None:
        # Outside of the service's unit the server's secret is not readable, and it is not needed here.
        settings = settings.model_copy(update={"user": user, "password": None})
    arguments = _connect_arguments(settings)
    # The default context verifies the chain and the host name: libpq's verify-full.
    arguments["ssl"] = client_context(settings.ca) if settings.ca else False
    if user is not None:
        arguments["password"] = password
    if statement_timeout_s is not None:
        arguments["command_timeout"] = statement_timeout_s
    try:
        return await asyncpg.connect(**arguments)
    except _UNAVAILABLE as error:
        raise _unavailable(settings, error) from error


def commit_refused(error: BaseException | None) -> bool:
    """Return whether an error of a commit means that PostgreSQL did not commit.

    ERROR is the response to the commit and means that the transaction was rolled back. FATAL closes the
    connection at any point and leaves the result unknown.
    """
    return isinstance(error, asyncpg.PostgresError) and error.severity_en == "ERROR"


def _connect_arguments(settings: DatabaseSettings) -> dict[str, Any]:
    return {
        "host": settings.host,
        "port": settings.port,
        "database": settings.name,
        "user": settings.user,
        "password": settings.password.reveal() if settings.password else None,
        "timeout": settings.timeout_s,
        "command_timeout": settings.timeout_s,
        "server_settings": {"application_name": "mcp_server", "timezone": "UTC"},
    }


def _cut(connection: asyncpg.Connection) -> None:
    with contextlib.suppress(asyncpg.InterfaceError):  # already lost, and back in the pool
        connection.terminate()


async def _keep_session(_connection: asyncpg.Connection) -> None:
    """Skip RESET ALL, which costs a round trip: all session state is local to a transaction."""


def _place(settings: DatabaseSettings) -> str:
    return f"PostgreSQL at {settings.host}:{settings.port} (database {settings.name})"


def _unavailable(settings: DatabaseSettings, error: BaseException) -> DatabaseUnavailable:
    match error:
        case TimeoutError():
            what = f"did not answer within {settings.timeout_s:g} s"
        case ConnectionRefusedError():
            what = "refuses connections: is it running?"
        case ssl.SSLError():
            what = f"failed the TLS handshake: {error}"
        case asyncpg.exceptions.InvalidAuthorizationSpecificationError():
            what = f"does not let the role in: {error}"
        case _:
            what = f"is unavailable: {str(error) or type(error).__name__}"
    return DatabaseUnavailable(f"{_place(settings)} {what}")
