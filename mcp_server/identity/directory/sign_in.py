"""Sign-in with a directory's password: search the user, bind as the user, read account and groups."""

from __future__ import annotations

import asyncio
import json
import secrets
import ssl
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import structlog
from sansldap import (
    FilterAnd,
    FilterEquality,
    FilterExtensibleMatch,
    FilterOr,
    FilterPresent,
    FilterSubstrings,
    LDAPFilter,
    LDAPResultCode,
    SearchScope,
)

from mcp_server.identity.directory.accounts import ACCOUNT_ATTRIBUTES, fault_of, refusal_of
from mcp_server.identity.directory.connection import (
    Connection,
    DirectoryUnavailable,
    TooManyEntries,
    described,
)
from mcp_server.infrastructure.tls import RenewedContext, renewed_client_context
from mcp_server.settings import DirectorySettings

__all__ = ["Directory", "DirectoryUser", "SignInRefused"]

_log = structlog.stdlib.get_logger("mcp_server")

_MAX_NAME_LENGTH = 256
_MAX_PASSWORD_BYTES = 1024
# LDAP_MATCHING_RULE_IN_CHAIN ([MS-ADTS] section 3.1.1.3.4.4.3): also members of members.
_IN_CHAIN = "1.2.840.113556.1.4.1941"
_MAX_GROUPS = 1000  # a search of Active Directory returns no more
_GROUPS_PER_SEARCH = 50
_MAX_GROUPS_BYTES = 4096  # of all names as JSON: they must fit into a token
# Every refusal is answered this long after its request, so that the time does not tell whether the user
# exists: a server spends time on a password's hash only for users that exist.
_REFUSAL_S = 1.0
_TRIED_LAST_S = 30.0  # after a failure, a server is tried after the others for this time
_IDLE_S = 30.0  # an idle connection is used again within this time


class SignInRefused(Exception):
    """The directory's user is not signed in.

    Attributes:
        reason: a word for the audit log. The client must not learn it.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class DirectoryUser:
    """A user that has signed in.

    Attributes:
        id: the subject's id.
        tenant: the subject's tenant.
        groups: names of the user's groups, sorted, nested groups included.
    """

    id: str
    tenant: str
    groups: tuple[str, ...]


class Directory:
    """Signs users in on the first of several servers that answers.

    No part of a name has a meaning in a search. Only a bind of the user's own entry with the given
    password signs a user in.
    """

    def __init__(self, settings: DirectorySettings) -> None:
        self._settings = settings
        self._bind_password = settings.bind_password.reveal()
        self._context = (
            renewed_client_context(settings.ca)
            if settings.ca
            else RenewedContext(ssl.create_default_context, lambda: ())
        )
        self._places = asyncio.Semaphore(settings.pool_size)
        self._idle: list[tuple[Connection, float]] = []
        self._failed: dict[str, float] = {}

    async def stop(self) -> None:
        """Close the idle connections."""
        while self._idle:
            connection, _ = self._idle.pop()
            connection.close()
            await connection.closed()

    async def sign_in(self, name: str, password: str) -> DirectoryUser:
        """Return the user with this name and password.

        Takes at least one second when it refuses, whatever the reason.

        Raises:
            SignInRefused: there is no such user, the password is wrong, or the account may not be used.
            DirectoryUnavailable: no server could tell.
        """
        answer_at = time.monotonic() + _REFUSAL_S
        try:
            if (fault := _fault_of_input(name, password)) is not None:
                raise SignInRefused(fault)
            async with self._place():
                return await self._sign_in(name, password)
        except SignInRefused:
            await asyncio.sleep(answer_at - time.monotonic())
            raise

    @asynccontextmanager
    async def _place(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                await self._places.acquire()
        except TimeoutError:
            raise DirectoryUnavailable(
                f"all {self._settings.pool_size} connections are in use"
            ) from None
        try:
            yield
        finally:
            self._places.release()

    async def _sign_in(self, name: str, password: str) -> DirectoryUser:
        if (idle := self._idle_connection()) is not None:
            try:
                return await self._over(idle, name, password)
            except DirectoryUnavailable as error:
                # The server may have closed it long ago, so that says nothing of the server.
                _log.info("directory_connection_lost", error=str(error))
        troubles = []
        for server in self._in_order():
            try:
                return await self._over(await self._open(server), name, password)
            except DirectoryUnavailable as error:
                _log.warning("directory_server_unavailable", server=server, error=str(error))
                self._failed[server] = time.monotonic()
                troubles.append(f"{server}: {error}")
        raise DirectoryUnavailable("; ".join(troubles))

    def _idle_connection(self) -> Connection | None:
        while self._idle:
            connection, since = self._idle.pop()
            if time.monotonic() - since < _IDLE_S:
                return connection
            connection.close()
        return None

    def _in_order(self) -> list[str]:
        """Return the servers in their order, those last that failed lately."""
        lately = time.monotonic() - _TRIED_LAST_S
        return sorted(self._settings.servers, key=lambda each: self._failed.get(each, 0) > lately)

    async def _open(self, server: str) -> Connection:
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                return await Connection.open(server, self._context)
        except TimeoutError:
            raise DirectoryUnavailable(
                f"no connection within {self._settings.timeout_s:g} s"
            ) from None

    async def _over(self, connection: Connection, name: str, password: str) -> DirectoryUser:
        """Sign in over a connection, and keep it for the next sign-in unless it failed."""
        kept = False
        try:
            async with asyncio.timeout(self._settings.timeout_s):
                user = await self._user(
                    connection, await self._authenticate(connection, name, password)
                )
            kept = True
        except SignInRefused:
            kept = True
            raise
        except TimeoutError:
            raise DirectoryUnavailable(f"no answer within {self._settings.timeout_s:g} s") from None
        finally:
            if kept:
                self._idle.append((connection, time.monotonic()))
            else:
                connection.close()
        return user

    async def _authenticate(self, connection: Connection, name: str, password: str) -> str:
        """Return the DN of the user with this name and password; the connection is bound as we are."""
        await self._bind_service(connection)
        dn = await self._find(connection, name)
        # A bind takes place for every name, so that unknown users cost a request as well.
        result = await connection.bind(dn or self._nobody(), password)
        if result.result_code is not LDAPResultCode.SUCCESS:
            if (reason := refusal_of(result)) is None:
                raise DirectoryUnavailable(f"the bind of a user failed: {described(result)}")
            raise SignInRefused(reason if dn else "unknown_user")
        if dn is None:
            raise SignInRefused("unknown_user")
        await self._bind_service(connection)
        return dn

    async def _bind_service(self, connection: Connection) -> None:
        result = await connection.bind(self._settings.bind_dn, self._bind_password)
        if result.result_code is not LDAPResultCode.SUCCESS:
            raise DirectoryUnavailable(
                f"the bind of {self._settings.bind_dn} failed: {described(result)}; check "
                "identity.directory.bind_dn and bind_password"
            )

    def _nobody(self) -> str:
        return f"cn={secrets.token_hex(16)},{self._settings.users.base}"

    async def _find(self, connection: Connection, name: str) -> str | None:
        """Return the DN of the only user with this name."""
        users = self._settings.users
        wanted = _any_of(users.attributes, [name])
        try:
            found = await connection.search(users.base, wanted, [users.id], limit=2)
        except TooManyEntries:
            return None
        if len(found) > 1:
            _log.warning("directory_user_ambiguous", attributes=users.attributes, base=users.base)
        return found[0].dn if len(found) == 1 else None

    async def _user(self, connection: Connection, dn: str) -> DirectoryUser:
        settings = self._settings
        attributes = [settings.users.id, *ACCOUNT_ATTRIBUTES]
        if settings.tenant.attribute:
            attributes.append(settings.tenant.attribute)
        anything = FilterPresent("objectClass")
        found = await connection.search(dn, anything, attributes, limit=1, scope=SearchScope.BASE)
        if not found:
            raise SignInRefused("unknown_user")  # removed meanwhile
        if (fault := fault_of(found[0], time.time())) is not None:
            raise SignInRefused(fault)
        user_id = found[0].text(settings.users.id)
        if not _is_name(user_id):
            raise SignInRefused("no_id")
        tenant = settings.tenant.value
        if settings.tenant.attribute:
            tenant = found[0].text(settings.tenant.attribute)
        if not tenant or not _is_name(tenant):
            raise SignInRefused("no_tenant")
        return DirectoryUser(user_id, tenant, await self._groups(connection, dn, user_id))

    async def _groups(self, connection: Connection, dn: str, user_id: str) -> tuple[str, ...]:
        settings = self._settings.groups
        try:
            if settings.nested == "in_chain":
                in_chain = FilterExtensibleMatch(_IN_CHAIN, settings.member, dn.encode(), False)
                groups = await self._group_search(connection, self._with_prefix(in_chain))
            else:
                groups = await self._walk(connection, dn, user_id)
        except TooManyEntries:
            raise SignInRefused("too_many_groups") from None
        names = {name for name in groups.values() if name.startswith(settings.prefix)}
        kept = tuple(sorted(filter(_is_name, names)))
        if len(json.dumps(kept)) > _MAX_GROUPS_BYTES:
            raise SignInRefused("too_many_groups")
        return kept

    def _with_prefix(self, wanted: LDAPFilter) -> LDAPFilter:
        settings = self._settings.groups
        if not settings.prefix:
            return wanted
        named = FilterSubstrings(settings.name, settings.prefix.encode(), [], None)
        return FilterAnd([wanted, named])

    async def _walk(self, connection: Connection, dn: str, user_id: str) -> dict[str, str]:
        """Return the names of the user's groups, and of the groups that have these as members, by DN."""
        settings = self._settings.groups
        depth = settings.max_depth if settings.nested == "walk" else 1
        # Groups of POSIX accounts hold names of users, and so no groups (RFC 2307 section 2).
        by_name = settings.member.lower() == "memberuid"
        members, found = [user_id if by_name else dn], dict[str, str]()
        for _ in range(1 if by_name else depth):
            level: dict[str, str] = {}
            for some in _slices(members):
                level |= await self._group_search(connection, _any_of([settings.member], some))
            members = [each for each in level if each not in found]
            found |= level
            if len(found) > _MAX_GROUPS:
                raise TooManyEntries(f"more than {_MAX_GROUPS} groups")
            if not members:
                break
        return found

    async def _group_search(self, connection: Connection, wanted: LDAPFilter) -> dict[str, str]:
        settings = self._settings.groups
        entries = await connection.search(settings.base, wanted, [settings.name], limit=_MAX_GROUPS)
        return {entry.dn: entry.text(settings.name) for entry in entries}


def _any_of(attributes: Sequence[str], values: Sequence[str]) -> LDAPFilter:
    """Return a filter for entries that have one of the values in one of the attributes."""
    return FilterOr(
        [FilterEquality(name, value.encode()) for name in attributes for value in values]
    )


def _slices(members: list[str]) -> Iterator[list[str]]:
    for begin in range(0, len(members), _GROUPS_PER_SEARCH):
        yield members[begin : begin + _GROUPS_PER_SEARCH]


def _fault_of_input(name: str, password: str) -> str | None:
    if not _is_name(name):
        return "invalid_name"
    # A bind with an empty password succeeds for everybody on many servers (RFC 4513 section 5.1.2).
    if not password or len(password.encode()) > _MAX_PASSWORD_BYTES or "\0" in password:
        return "invalid_password"
    return None


def _is_name(text: str) -> bool:
    return 0 < len(text) <= _MAX_NAME_LENGTH and text.isprintable() and text == text.strip()
