"""A real Keycloak with the realm of keycloak_realm.json, and requests to it."""

from __future__ import annotations

import shutil
import subprocess
import urllib.request
from pathlib import Path
from typing import Any

import httpx2

from mcp_server.infrastructure.tls import client_context
from tests.integration.directories import SERVICE_PASSWORD, Slapd
from tests.integration.servers import Authority, Server, free_port

__all__ = ["Keycloak"]

_ROOT = Path(__file__).resolve().parents[2]
_REALM = Path(__file__).with_name("keycloak_realm.json")
_ADMIN = "keycloak-tests-only"


class Keycloak(Server):
    """Keycloak with TLS; all its data but the directory's users are in memory.

    Args:
        users: a directory whose users and groups the realm has as well, over ldaps.

    Attributes:
        certificate: the certificate of its listener (PEM).
    """

    def __init__(self, directory: Path, authority: Authority, users: Slapd) -> None:
        super().__init__(directory)
        self.port = free_port()
        self._management_port = free_port()
        self._authority = authority
        self._users = users
        self._identity = authority.identity("keycloak")
        self.certificate = self._identity.cert
        self.origin = f"https://localhost:{self.port}"
        self.url = f"{self.origin}/realms/company"
        self._home = directory / "home"
        found = subprocess.run(
            [_ROOT / "scripts" / "fetch_keycloak"], capture_output=True, text=True, check=True
        )
        # A copy: it writes into its own directory at the start.
        shutil.copytree(found.stdout.strip(), self._home, dirs_exist_ok=True)
        # The script starts Java as a child, which would outlive it.
        script = self._home / "bin" / "kc.sh"
        start = """\neval "'$JAVA'" "$JAVA_RUN_OPTS"\n"""
        text = script.read_text()
        assert text.count(start) == 1
        script.write_text(text.replace(start, start.replace("eval", "eval exec")))
        imported = self._home / "data" / "import"
        imported.mkdir(parents=True, exist_ok=True)
        shutil.copy(_REALM, imported)

    def command(self) -> list[str]:
        return [
            *("env", "JAVA_OPTS_KC_HEAP=-Xms128m -Xmx512m"),
            *(f"KC_BOOTSTRAP_ADMIN_USERNAME={_ADMIN}", f"KC_BOOTSTRAP_ADMIN_PASSWORD={_ADMIN}"),
            # The realm's file names these variables.
            *(f"DIRECTORY_URL={self._users.url}", f"DIRECTORY_PASSWORD={SERVICE_PASSWORD}"),
            *(str(self._home / "bin" / "kc.sh"), "start", "--optimized", "--import-realm"),
            *("--cache=local", f"--https-port={self.port}"),
            f"--https-certificate-file={self._identity.cert}",
            f"--https-certificate-key-file={self._identity.key}",
            f"--truststore-paths={self._authority.ca}",
            *(f"--hostname={self.origin}", f"--http-management-port={self._management_port}"),
        ]

    def ready(self) -> bool:
        context = client_context(self._authority.ca)
        url = f"{self.url}/.well-known/openid-configuration"
        with urllib.request.urlopen(url, timeout=2, context=context) as answer:
            return bool(answer.status == 200)

    def http(self) -> httpx2.AsyncClient:
        context = client_context(self._authority.ca)
        return httpx2.AsyncClient(base_url=self.origin, verify=context, timeout=30)

    def issuer(self, **different: Any) -> dict[str, Any]:
        """Return its entry of `identity.issuers`, as docs/identity.md has it."""
        return {
            "name": "keycloak",
            "issuer": self.url,
            "audience": "https://mcp.test/mcp",
            "algorithms": ["RS256", "ES256", "EdDSA"],
            "claims": {
                "subject": "preferred_username",
                "tenant": "tenant",
                "roles": "realm_access.roles",
                "groups": "groups",
            },
            "ca": str(self._authority.ca),
            **different,
        }

    async def token(self, client: str, **form: str) -> str:
        """Return an access token of a client, by client credentials unless `form` says otherwise."""
        values = {
            "grant_type": "client_credentials",
            "client_id": client,
            "client_secret": f"{client}-secret",
            **form,
        }
        async with self.http() as http:
            path = "/realms/company/protocol/openid-connect/token"
            answer = await http.post(path, data=values)
        assert answer.status_code == 200, answer.text
        token: str = answer.json()["access_token"]
        return token

    async def user_token(self, user: str, **form: str) -> str:
        """Return an access token of a user, by the user's password."""
        return await self.token(
            "desktop", grant_type="password", username=user, password=f"{user}-password", **form
        )

    async def rotate_keys(self) -> None:
        """Let a new RSA key sign, and remove the old one."""
        async with self.http() as http:
            answer = await http.post(
                "/realms/master/protocol/openid-connect/token",
                data={
                    "grant_type": "password",
                    "client_id": "admin-cli",
                    "username": _ADMIN,
                    "password": _ADMIN,
                },
            )
            http.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"
            path = "/admin/realms/company/components"
            kind = "org.keycloak.keys.KeyProvider"
            listed = (await http.get(path, params={"type": kind})).json()
            parent = listed[0]["parentId"]
            created = await http.post(
                path,
                json={
                    "providerType": kind,
                    "name": "newer",
                    "providerId": "rsa-generated",
                    "parentId": parent,
                    "config": {"priority": ["200"], "algorithm": ["RS256"]},
                },
            )
            assert created.status_code == 201, created.text
            for each in listed:
                if each["providerId"] == "rsa-generated":
                    assert (await http.delete(f"{path}/{each['id']}")).status_code == 204
