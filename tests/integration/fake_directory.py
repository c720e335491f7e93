"""An LDAP server whose answers a test chooses: what OpenLDAP does not do, and what no server should."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Callable

from sansldap import (
    BindRequest,
    FilterAnd,
    FilterExtensibleMatch,
    LDAPError,
    LDAPMessage,
    LDAPResultCode,
    LDAPServer,
    PartialAttribute,
    SearchRequest,
    SearchScope,
)

from tests.integration.directories import PASSWORD, SERVICE_PASSWORD
from tests.integration.servers import Identity

__all__ = ["Answer", "active_directory", "serving", "tls_of"]

Answer = Callable[[LDAPServer, LDAPMessage], bytes | None]
"""Answers a message through the session, or returns bytes to send in place of that."""

_USER = "CN=Alice,OU=People,DC=example,DC=test"
IN_CHAIN = "1.2.840.113556.1.4.1941"


def tls_of(identity: Identity) -> ssl.SSLContext:
    """Return the context of a server with this certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identity.cert, identity.key)
    return context


@contextlib.asynccontextmanager
async def serving(answer: Answer, tls: ssl.SSLContext | None) -> AsyncIterator[int]:
    """Serve LDAP on 127.0.0.1 while the block runs, and return the port; without TLS if it is None."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        session = LDAPServer()
        # Whatever is no LDAP, such as the TLS of a client that was promised some, ends the connection.
        with contextlib.suppress(OSError, LDAPError):
            while data := await reader.read(65536):
                for message in session.receive(data):
                    raw = answer(session, message)
                    writer.write(session.data_to_send() if raw is None else raw)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await asyncio.sleep(0.05)  # until its connections have ended too


def active_directory(
    *,
    code: LDAPResultCode = LDAPResultCode.SUCCESS,
    says: str = "",
    groups: int = 2,
) -> Answer:
    """Return the answers of an Active Directory with the user Alice.

    Args:
        code: of the user's bind.
        says: the diagnostic message of the user's bind.
        groups: number of her groups, which only LDAP_MATCHING_RULE_IN_CHAIN finds.
    """

    def answer(session: LDAPServer, message: LDAPMessage) -> None:
        match message:
            case BindRequest(name=name, authentication=credential):
                known = {_USER: PASSWORD}.get(name, SERVICE_PASSWORD)
                right = getattr(credential, "password", None) == known
                if name == _USER and code is not LDAPResultCode.SUCCESS:
                    session.bind_response(
                        message.message_id, result_code=code, diagnostics_message=says
                    )
                else:
                    result = LDAPResultCode.SUCCESS if right else LDAPResultCode.INVALID_CREDENTIALS
                    session.bind_response(message.message_id, result_code=result)
            case SearchRequest():
                # As for every search of a whole domain.
                session.search_result_reference(
                    message.message_id, ["ldap://forest.example.test/DC=example,DC=test"]
                )
                for dn, name, values in _found(message, groups):
                    session.search_result_entry(
                        message.message_id, dn, [PartialAttribute(name, values)]
                    )
                session.search_result_done(message.message_id)

    return answer


def _found(message: SearchRequest, groups: int) -> list[tuple[str, str, list[bytes]]]:
    if message.scope is SearchScope.BASE or "people" in message.base_object:
        return [(_USER, "uid", [b"alice"])]
    wanted = message.filter
    if isinstance(wanted, FilterAnd):
        wanted = wanted.filters[0]
    if isinstance(wanted, FilterExtensibleMatch) and wanted.rule == IN_CHAIN:
        assert wanted.value.decode() == _USER
        return [
            (f"CN=mcp-{number},OU=Groups", "cn", [f"mcp-{number}".encode()])
            for number in range(groups)
        ]
    return []
