"""OAuth clients of the tests: what the SDK's providers need of an application."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web
from mcp.client.auth import OAuthClientProvider
from mcp.shared.auth import (
    AuthorizationCodeResult,
    OAuthClientInformationFull,
    OAuthClientMetadata,
    OAuthToken,
)
from pydantic import AnyUrl

from tests.integration.browsers import Browser
from tests.integration.servers import free_port

__all__ = ["DesktopClient", "TokenStore"]

_REDIRECT_S = 120.0


class TokenStore:
    """Keeps the tokens and the registration of one client in memory.

    Args:
        registered: the client, if it was registered before.
    """

    def __init__(self, registered: OAuthClientInformationFull | None = None) -> None:
        self.tokens: list[OAuthToken] = []
        self.registrations: list[OAuthClientInformationFull] = []
        self._registered = registered

    async def get_tokens(self) -> OAuthToken | None:
        return self.tokens[-1] if self.tokens else None

    async def set_tokens(self, tokens: OAuthToken) -> None:
        self.tokens.append(tokens)

    async def get_client_info(self) -> OAuthClientInformationFull | None:
        return self._registered

    async def set_client_info(self, client_info: OAuthClientInformationFull) -> None:
        self.registrations.append(client_info)
        self._registered = client_info


class DesktopClient:
    """A public client on a user's machine, which sends the user to a browser (RFC 8252).

    Attributes:
        provider: authenticates the requests of an HTTP client.
        opened: the addresses that were opened in the browser.
        store: has the client's tokens.
    """

    def __init__(self, browser: Browser, user: str, *, consents: bool) -> None:
        self.opened: list[str] = []
        self.store = TokenStore()
        self.provider: OAuthClientProvider
        self._browser = browser
        self._user = user
        self._consents = consents
        self._redirects: asyncio.Queue[AuthorizationCodeResult] = asyncio.Queue()

    @classmethod
    @asynccontextmanager
    async def running(
        cls,
        browser: Browser,
        user: str,
        *,
        server_url: str,
        registered_by: str = "",
        client_id: str = "",
    ) -> AsyncIterator[DesktopClient]:
        """Listen for the redirects of the browser while the block runs.

        Args:
            user: signs in with the password `USER-password`.
            registered_by: issuer where `client_id` is registered; empty: the client registers itself,
                and the user has to consent.
        """
        client = cls(browser, user, consents=not registered_by)
        app = web.Application()
        app.router.add_get("/callback", client._redirected)
        runner = web.AppRunner(app)
        await runner.setup()
        port = free_port()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        redirect = AnyUrl(f"http://127.0.0.1:{port}/callback")
        if registered_by:
            client.store = TokenStore(
                OAuthClientInformationFull(
                    client_id=client_id,
                    redirect_uris=[redirect],
                    token_endpoint_auth_method="none",
                    issuer=registered_by,
                )
            )
        client.provider = OAuthClientProvider(
            server_url=server_url,
            client_metadata=OAuthClientMetadata(
                client_name="desktop client of the tests",
                redirect_uris=[redirect],
                token_endpoint_auth_method="none",
            ),
            storage=client.store,
            redirect_handler=client._open,
            callback_handler=client._redirect,
        )
        try:
            yield client
        finally:
            await runner.cleanup()

    async def _redirected(self, request: web.Request) -> web.Response:
        query = request.query
        result = AuthorizationCodeResult(
            code=query.get("code", ""), state=query.get("state"), iss=query.get("iss")
        )
        self._redirects.put_nowait(result)
        return web.Response(text="You are signed in. You may close this window.")

    async def _redirect(self) -> AuthorizationCodeResult:
        return await asyncio.wait_for(self._redirects.get(), _REDIRECT_S)

    async def _open(self, url: str) -> None:
        """Open the authorization server, and sign in unless the browser has a session there.

        Keycloak keeps none for a client that asks for offline access, as the SDK's does.
        """
        self.opened.append(url)
        await self._browser.open(url)
        if not self._redirects.empty():
            return
        await self._browser.fill("#username", self._user)
        await self._browser.fill("#password", f"{self._user}-password")
        await self._browser.click("#kc-login")
        if self._consents:
            await self._browser.click("[name=accept]")
