"""A headless Chromium, driven over W3C WebDriver by Debian's chromedriver.

A test needs five of its requests. A client library would bring ten packages for them.
"""

from __future__ import annotations

import asyncio
import base64
import os
import time
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256, Hash
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.integration.servers import Server, free_port, program

__all__ = ["Browser", "ChromeDriver"]

# The member that holds the id of an element (W3C WebDriver, section 12.1 "Web element reference").
_ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
_FIND_S = 60.0


class ChromeDriver(Server):
    """chromedriver, which starts a Chromium for each session."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"

    def command(self) -> list[str]:
        return [program("chromedriver", "chromium-driver"), f"--port={self.port}"]

    def ready(self) -> bool:
        with urllib.request.urlopen(f"{self.url}/status", timeout=2) as answer:
            return bool(answer.status == 200)

    @asynccontextmanager
    async def browser(self, *, trusted: Path) -> AsyncIterator[Browser]:
        """Start a browser without cookies or history; it ends with the block.

        Args:
            trusted: certificate of a server (PEM) whose key the browser trusts in addition.
        """
        arguments = [
            "--headless=new",
            "--disable-dev-shm-usage",
            f"--ignore-certificate-errors-spki-list={_key_digest(trusted)}",
        ]
        if os.geteuid() == 0:
            arguments.append("--no-sandbox")  # its sandbox does not start for root
        options = {"binary": program("chromium", "chromium"), "args": arguments}
        capabilities = {"alwaysMatch": {"goog:chromeOptions": options}}
        async with httpx2.AsyncClient(base_url=self.url, timeout=120) as http:
            started = await _value(http, "POST", "/session", {"capabilities": capabilities})
            session = f"/session/{started['sessionId']}"
            try:
                yield Browser(http, session)
            finally:
                await _value(http, "DELETE", session)


class Browser:
    """One window of a browser."""

    def __init__(self, http: httpx2.AsyncClient, session: str) -> None:
        self._http = http
        self._session = session

    async def open(self, url: str) -> None:
        """Open a page and wait until it is loaded."""
        await self._post("/url", {"url": url})

    async def address(self) -> str:
        """Return the address of the current page."""
        address: str = await _value(self._http, "GET", f"{self._session}/url")
        return address

    async def fill(self, selector: str, text: str) -> None:
        """Type into a field, as soon as there is one."""
        await self._post(f"/element/{await self._element(selector)}/value", {"text": text})

    async def click(self, selector: str) -> None:
        """Click an element, as soon as there is one."""
        await self._post(f"/element/{await self._element(selector)}/click", {})

    async def _element(self, selector: str) -> str:
        deadline = time.monotonic() + _FIND_S
        while True:
            query = {"using": "css selector", "value": selector}
            found = await self._post("/elements", query)
            if found:
                element: str = found[0][_ELEMENT]
                return element
            if time.monotonic() > deadline:
                raise AssertionError(f"{await self.address()} has no {selector}")
            await asyncio.sleep(0.1)

    async def _post(self, path: str, body: dict[str, Any]) -> Any:
        return await _value(self._http, "POST", f"{self._session}{path}", body)


async def _value(
    http: httpx2.AsyncClient, method: str, path: str, body: dict[str, Any] | None = None
) -> Any:
    answer = await http.request(method, path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()["value"]


def _key_digest(certificate: Path) -> str:
    """Return the SHA-256 of a certificate's public key (SubjectPublicKeyInfo) in Base64."""
    key = x509.load_pem_x509_certificate(certificate.read_bytes()).public_key()
    digest = Hash(SHA256())
    digest.update(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))
    return base64.b64encode(digest.finalize()).decode()
