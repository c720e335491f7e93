"""Commands log in to PostgreSQL as another role than the server."""

from pathlib import Path

import pytest

from mcp_server.infrastructure.database import DatabaseUnavailable, connect
from mcp_server.settings import DatabaseSettings, Secret

pytestmark = pytest.mark.anyio


async def test_a_command_with_its_own_role_does_not_read_the_servers_secret() -> None:
    settings = DatabaseSettings(
        host="127.0.0.1",
        port=1,
        password=Secret(file=Path("/run/credentials/mcp-server.service/absent")),
        timeout_s=1,
    )

    with pytest.raises(DatabaseUnavailable):
        await connect(settings, user="mcp_owner", password="given")
