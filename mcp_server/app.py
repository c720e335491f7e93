"""The composition root: builds every part from Settings, and runs them as one process."""

from __future__ import annotations

import asyncio
import gc
import math
import signal
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from typing import Any

from mcp.server.context import ServerRequestContext
from mcp.server.stdio import stdio_server
from mcp.server.subscriptions import (
    PromptsListChanged,
    ResourcesListChanged,
    ToolsListChanged,
)
from mcp.shared.exceptions import MCPError
from mcp_types.methods import SPEC_CLIENT_METHODS
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.routing import Mount, Route
from starlette.types import ASGIApp

from mcp_server.audit.heads import HeadWriter
from mcp_server.audit.store import AuditStore
from mcp_server.audit.unfinished import Unfinished
from mcp_server.gate import Call, Caller, Gate, IdempotencyKey, Refused
from mcp_server.gate.entitlements import EntitlementsReader, policy_me
from mcp_server.gate.resource_reads import Resources
from mcp_server.gate.sign_ins import SignIns
from mcp_server.health.readiness import Monitor
from mcp_server.health.routes import health_routes, telemetry_routes
from mcp_server.identity import (
    AuthenticationError,
    IdentityUnavailable,
    SharedSecret,
    Subject,
    VerifiedTokens,
    Verifier,
)
from mcp_server.identity.api_keys import PREFIX, ApiKeys
from mcp_server.identity.directory import Directory, DirectoryTokens
from mcp_server.identity.dpop import PROOF_AGE_S, DpopProof
from mcp_server.identity.introspection import Introspection
from mcp_server.identity.issuers import JwksIssuer
from mcp_server.identity.revocations import Revocations
from mcp_server.infrastructure import telemetry
from mcp_server.infrastructure.database import Database
from mcp_server.infrastructure.telemetry.tracing import exported
from mcp_server.policy import Counters, CountersUnavailable, PolicyEngine
from mcp_server.prompts import PROMPTS, Prompts
from mcp_server.settings import CmdbSettings, Settings, SettingsError, ToolsSettings
from mcp_server.tools.catalog import Catalog
from mcp_server.tools.cmdb.backend import CmdbBackend
from mcp_server.tools.cmdb.family import Cmdb
from mcp_server.tools.cmdb.postgres import PostgresCmdb
from mcp_server.tools.cmdb.rest import RestCmdb
from mcp_server.tools.cursor import KEY_BYTES, CursorCipher
from mcp_server.tools.kubernetes.family import Kubernetes
from mcp_server.tools.monitoring.family import Monitoring
from mcp_server.transports.client_info import client_of_session
from mcp_server.transports.cors import AllowedOrigins, Cors
from mcp_server.transports.errors import UNAUTHORIZED, UNAVAILABLE
from mcp_server.transports.http_guard import HttpGuard, RequestState, TrustedHosts, internal_error
from mcp_server.transports.listener import Listener
from mcp_server.transports.mcp import McpTransport
from mcp_server.transports.rest import RestApi, takes_body, wrong_path
from mcp_server.transports.sign_in import TokenEndpoint
from mcp_server.transports.streamable_http import StreamableHttp

__all__ = ["Node", "perform_once", "serve", "serve_stdio"]

# A node that stops waits for the longest deadline of its calls, plus this time for their decisions,
# counters and audit rows.
_ACCOUNTING_S = 5.0
# After that, time for the answers to the calls that were cut off.
_SETTLE_S = 10.0
# A tool that only other nodes have may take as long as an obligation of the policy can allow.
_LONGEST_OF_OTHERS_S = 300.0
_EXPIRED = "the token of this session has expired; start `mcpctl stdio` again with a new one"


class Node:
    """All parts of one server node.

    As an asynchronous context manager it starts every part, and stops them in the opposite order. No
    part needs its backend to be up.
    """

    _transport_class = McpTransport

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.draining = False
        self._stack = AsyncExitStack()
        shared_secret = SharedSecret(settings.identity.jwt)
        self.directory = (
            Directory(settings.identity.directory) if settings.identity.directory else None
        )
        cipher = CursorCipher(shared_secret.key_for("cursors", KEY_BYTES))
        self.policy = PolicyEngine(settings.policy)
        self.counters = Counters(settings.counters)
        self.database = Database(settings.database)
        self.revocations = Revocations(
            self.database, max_age_s=settings.identity.revocations_max_age_s
        )
        self._directory_tokens = DirectoryTokens(settings.identity.jwt, shared_secret)
        verified = VerifiedTokens()
        self._issuers = [
            JwksIssuer(each, verified.clear)
            for each in settings.identity.issuers
            if each.algorithms
        ]
        # At most one: an opaque token does not tell its issuer.
        self._introspection = next(
            (
                Introspection(each, each.introspection)
                for each in settings.identity.issuers
                if each.introspection is not None
            ),
            None,
        )
        known = {each.issuer for each in self._issuers}
        introspected = [self._introspection] if self._introspection is not None else []
        self.verifier = Verifier(
            [
                shared_secret,
                *((self._directory_tokens,) if self.directory else ()),
                *self._issuers,
                *(each for each in introspected if each.issuer not in known),
            ],
            opaque=self._introspection,
            verified=verified,
            by_prefix={PREFIX: ApiKeys(self.database)},
            check=self.revocations.check,
            first_use=self._first_use,
        )
        self.audit = AuditStore(
            self.database,
            HeadWriter(settings.audit, settings.node) if settings.audit.heads else None,
        )
        self.kubernetes = (
            Kubernetes(settings.tools.kubernetes, cipher=cipher)
            if settings.tools.kubernetes
            else None
        )
        self.monitoring = (
            Monitoring(settings.tools.monitoring, workloads=self.kubernetes, cipher=cipher)
            if settings.tools.monitoring
            else None
        )
        self.cmdb = (
            Cmdb(_cmdb_backend(settings.tools.cmdb, self.database), cipher=cipher)
            if settings.tools.cmdb
            else None
        )
        families = [
            family for family in (self.kubernetes, self.monitoring, self.cmdb) if family is not None
        ]
        self.gate = Gate(
            node=settings.node,
            policy=self.policy,
            counters=self.counters,
            audit=self.audit,
            catalog=Catalog(tool for family in families for tool in family.tools()),
            result_digests=settings.audit.result_digests,
        )
        self.sign_ins = SignIns(
            node=settings.node, policy=self.policy, counters=self.counters, audit=self.audit
        )
        timeouts = {tool.name: tool.timeout_s for tool in self.gate.catalog}
        self.unfinished = Unfinished(
            self.database,
            self.audit,
            node=settings.node,
            longest_s=lambda tool: timeouts.get(tool or "", _LONGEST_OF_OTHERS_S),
        )
        self.prompts = Prompts(PROMPTS, self.gate.catalog)
        self.resources = Resources(
            [
                *(self.monitoring.resources() if self.monitoring else ()),
                *(self.cmdb.resources() if self.cmdb else ()),
                *(self.kubernetes.resources() if self.kubernetes else ()),
                policy_me(EntitlementsReader(self.gate, offered=self._offered)),
            ]
        )
        self.origins = AllowedOrigins(settings.public_origin, settings.cors.allowed_origins)
        self._transports: list[McpTransport] = []
        self.monitor = Monitor(
            policy=self.policy,
            counters=self.counters,
            audit=self.audit,
            on_new_revision=self._announce_lists,
        )

    async def __aenter__(self) -> Node:
        async with AsyncExitStack() as started:
            started.enter_context(self._traces())
            started.push_async_callback(self.counters.stop)
            if self.directory is not None:
                started.push_async_callback(self.directory.stop)
            for part in (
                *self._issuers,
                self._introspection,
                self.policy,
                self.database,
                self.revocations,
                self.audit,
                self.sign_ins,
                self.kubernetes,
                self.monitoring,
                self.cmdb,
                self.monitor,
            ):
                if part is not None:
                    # Registered before the start, which may fail half-way.
                    started.push_async_callback(part.stop)
                    await part.start()
            self._stack = started.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def _first_use(self, proof: DpopProof) -> bool:
        """Tell whether a DPoP proof was not used on any node; see `possession.FirstUse`."""
        name = f"{proof.key}:{proof.id}"
        try:
            return await self.counters.first(name, within_s=2 * PROOF_AGE_S)
        except CountersUnavailable as error:
            telemetry.log.warning("counters_unavailable", error=str(error))
            raise IdentityUnavailable(
                "DPoP proofs cannot be compared with earlier ones at the moment; try again"
            ) from error

    async def _announce_lists(self) -> None:
        for transport in self._transports:
            await transport.changes.publish(ToolsListChanged())
            await transport.changes.publish(ResourcesListChanged())
            await transport.changes.publish(PromptsListChanged())

    def _traces(self) -> AbstractContextManager[None]:
        """Export the traces of this process while the block runs, if an OTLP endpoint is configured."""
        if not self.settings.telemetry.otlp_endpoint:
            return nullcontext()
        names = {tool.wire_name for tool in self.gate.catalog} | {p.name for p in self.prompts}
        return exported(
            self.settings.telemetry,
            node=self.settings.node,
            methods=SPEC_CLIENT_METHODS,
            names=names,
        )

    def _offered(self) -> list[str]:
        """Return the URIs of the resources and the names of the prompts of this node."""
        return [resource.uri for resource in self.resources] + [p.name for p in self.prompts]

    def drain(self) -> None:
        """Refuse new requests and end event streams; requests in progress go on."""
        self.draining = True
        for transport in self._transports:
            transport.drain()

    def mcp_transport(
        self,
        caller_of: Callable[[ServerRequestContext[Any, Any]], Caller],
        on_refused: Callable[[ServerRequestContext[Any, Any], Refused], None] = lambda *_: None,
    ) -> McpTransport:
        """Return a new MCP transport, which is notified of changed lists."""
        transport = self._transport_class(
            self.gate,
            self.resources,
            self.prompts,
            caller_of=caller_of,
            on_refused=on_refused,
        )
        self._transports.append(transport)
        return transport

    def application(self) -> Starlette:
        """Return the ASGI application behind the load balancer."""
        settings = self.settings
        transport = self.mcp_transport(lambda ctx: _request_state(ctx).caller, _keep_refusal)
        endpoint = StreamableHttp(transport, max_body_bytes=settings.listen.max_body_bytes)
        rest = RestApi(
            self.gate,
            self.resources,
            public_origin=settings.public_origin,
            key_of=lambda subject, key: IdempotencyKey(self.database, settings.node, subject, key),
        )
        certificates = settings.identity.client_certificates

        def guarded(app: ASGIApp, transport: Any, **options: Any) -> ASGIApp:
            return HttpGuard(
                app,
                transport=transport,
                verifier=self.verifier,
                sign_ins=self.sign_ins,
                public_origin=settings.public_origin,
                origins=self.origins,
                max_body_bytes=settings.listen.max_body_bytes,
                draining=lambda: self.draining,
                initial_scope=lambda: self.monitor.latest.initial_scope,
                **options,
                certificate_tenant=certificates.tenant if certificates else None,
            )

        @asynccontextmanager
        async def lifespan(_: Starlette) -> AsyncIterator[None]:
            async with endpoint.run():
                yield

        app = Starlette(
            routes=[
                *health_routes(
                    readiness=lambda: self.monitor.latest,
                    draining=lambda: self.draining,
                    public_origin=settings.public_origin,
                    authorization_servers=[each.issuer for each in settings.identity.issuers],
                    client_certificates=settings.listen.client_certificates,
                ),
                Route(
                    "/auth/token",
                    TokenEndpoint(
                        directory=self.directory,
                        tokens=self._directory_tokens,
                        sign_ins=self.sign_ins,
                        origins=self.origins,
                        draining=lambda: self.draining,
                    ),
                    methods=None,
                ),
                Route("/mcp", guarded(endpoint.handle_request, "mcp"), methods=None),
                Mount("/", guarded(rest.app, "rest", takes_body=takes_body)),
            ],
            lifespan=lifespan,
            exception_handlers={HTTPException: wrong_path(), Exception: internal_error},
        )
        app.add_middleware(TrustedHosts, names=_host_names(settings))
        return app

    def telemetry_application(self) -> Starlette:
        """Return the ASGI application that Prometheus scrapes."""
        return Starlette(
            routes=telemetry_routes(
                readiness=lambda: self.monitor.latest,
                inflight=lambda: self.gate.inflight,
                draining=lambda: self.draining,
            ),
            exception_handlers={
                HTTPException: wrong_path("GET /metrics and GET /status"),
                Exception: internal_error,
            },
        )


def _cmdb_backend(settings: CmdbSettings, database: Database) -> CmdbBackend:
    return RestCmdb(settings) if settings.backend == "rest" else PostgresCmdb(database)


def _host_names(settings: Settings) -> list[str]:
    """Return the accepted Host names: the public name, and the address of this node."""
    return [settings.public_url.host or "", settings.listen.host]


def _request_state(ctx: ServerRequestContext[Any, Any]) -> RequestState:
    if ctx.request is None:
        raise TypeError("the message did not come over HTTP")
    return RequestState.of(ctx.request.scope)


def _keep_refusal(ctx: ServerRequestContext[Any, Any], refusal: Refused) -> None:
    _request_state(ctx).refusal = refusal


async def serve(settings: Settings, make: Callable[[Settings], Node] = Node) -> None:
    """Run one node, built by `make`, until SIGTERM or SIGINT.

    On a signal the node drains: for `listen.drain_s` seconds new requests get 503. Then it closes its
    listener, waits for the requests in progress, and stops. SIGHUP reloads certificates.
    """
    async with make(settings) as node:
        app = node.application()
        grace_s = node.gate.longest_s + _ACCOUNTING_S
        # Around everything, so that pages of allowed origins can read every error.
        public = Listener(
            Cors(app, node.origins), settings.listen, graceful_s=math.ceil(grace_s + _SETTLE_S)
        )
        private = Listener(node.telemetry_application(), settings.telemetry, graceful_s=1)
        async with app.router.lifespan_context(app), node.unfinished:
            stop = asyncio.Event()
            loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, stop.set)
            loop.add_signal_handler(signal.SIGHUP, _reload, public, private)
            answering = asyncio.create_task(public.serve())
            serving = asyncio.gather(answering, private.serve())
            stopping = asyncio.create_task(stop.wait())
            # The garbage collector skips everything that lives as long as the process.
            gc.collect()
            gc.freeze()
            telemetry.log.info("serving", node=settings.node, ready=node.monitor.latest.ready)
            parts: set[asyncio.Future[Any]] = {serving, stopping}
            await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
            if not serving.done():
                node.drain()
                telemetry.log.info("draining", inflight=node.gate.inflight)
                await asyncio.sleep(settings.listen.drain_s)
            public.close()
            _, late = await asyncio.wait([answering], timeout=grace_s)
            if late:
                telemetry.log.warning("work_cut_off", inflight=node.gate.inflight)
                node.gate.end_work()
                await asyncio.wait([answering])
            # Closed last: Prometheus and `mcpctl probe` see a draining node and not an absent one.
            private.close()
            stopping.cancel()
            await serving
    telemetry.log.info("stopped", node=settings.node)


def _reload(*listeners: Listener) -> None:
    # Connections to other systems renew themselves: see RenewedContext.
    try:
        for listener in listeners:
            listener.reload_certificate()
    except SettingsError as error:
        telemetry.log.error("certificates_not_reloaded", error=str(error))
    else:
        telemetry.log.info("certificates_reloaded")


async def serve_stdio(settings: Settings, token: str) -> None:
    """Serve MCP on standard input and output for the subject of a token, until the input ends.

    Once the token has expired or was revoked, every request is refused.

    Raises:
        AuthenticationError, IdentityUnavailable: as `TokenVerifier.verify`.
    """

    def caller(node: Node, subject: Subject, ctx: ServerRequestContext[Any, Any]) -> Caller:
        try:
            if subject.expired():
                raise AuthenticationError(_EXPIRED)
            node.revocations.check(subject)
        except AuthenticationError as error:
            data = {"code": error.code, "retryable": False}
            raise MCPError(UNAUTHORIZED.number, str(error), data) from error
        except IdentityUnavailable as error:
            data = {"code": UNAVAILABLE.code, "retryable": True}
            raise MCPError(UNAVAILABLE.number, str(error), data) from error
        return Caller(
            subject=subject,
            ip="127.0.0.1",
            user_agent="stdio",
            request_id=uuid.uuid4().hex,
            transport="stdio",
            client_info=client_of_session(ctx),
        )

    async with Node(settings) as node:
        subject = await node.verifier.verify(token)
        server = node.mcp_transport(lambda ctx: caller(node, subject, ctx)).server
        async with stdio_server() as (read, write):
            await server.run(read, write, server.create_initialization_options())


async def perform_once(
    settings: Settings,
    token: str,
    plan: Callable[[Subject, str], tuple[Call, Callable[[], Awaitable[None]]]],
) -> None:
    """Take one call of a command through the gate: decided by OPA, recorded in the audit log.

    Args:
        token: the bearer token of the user on whose behalf the command works.
        plan: gets the subject and the name of the node; returns the call and its work, which may raise
            ToolError.

    Raises:
        AuthenticationError, IdentityUnavailable: as `TokenVerifier.verify`.
        Refused, Failed, InternalError: as `Gate.perform_or_fail`.
    """
    async with Node(settings.model_copy(update={"tools": ToolsSettings()})) as node:
        subject = await node.verifier.verify(token)
        call, work = plan(subject, settings.node)
        caller = Caller(
            subject=subject,
            ip="127.0.0.1",
            user_agent="mcpctl",
            request_id=uuid.uuid4().hex,
            transport="cli",
        )
        await node.gate.perform_or_fail(caller, call, lambda _: work())
