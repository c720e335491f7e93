"""curl, for requests over a chosen version of HTTP: the clients in Python speak HTTP/1.1 only."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.integration.servers import program

__all__ = ["VERSIONS", "Answer", "post"]

VERSIONS = ("http1.1", "http2")


@dataclass(frozen=True)
class Answer:
    """What a server said, and over which version of HTTP (1.1 or 2)."""

    version: str
    status: int
    headers: dict[str, list[str]]
    text: str

    def json(self) -> Any:
        """Return the parsed body."""
        return json.loads(self.text)


def post(
    url: str, body: bytes, *, ca: Path, version: str, sized: bool = True, **headers: str
) -> Answer:
    """POST a body as JSON.

    Args:
        version: one of VERSIONS.
        sized: whether the request tells how large its body is.
    """
    headers = {"Content-Type": "application/json", "Expect": "", **headers}
    told = '{"version": "%{http_version}", "status": %{http_code}, "headers": %{header_json}}'
    done = subprocess.run(
        [
            *(program("curl", "curl"), "--silent", "--show-error", f"--{version}"),
            *("--max-time", "30", "--cacert", str(ca), "--write-out", f"%{{stderr}}{told}"),
            *(part for name, value in headers.items() for part in ("-H", f"{name}: {value}")),
            *(("--data-binary", "@-") if sized else ("--request", "POST", "--upload-file", "-")),
            url,
        ],
        input=body,
        capture_output=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return Answer(text=done.stdout.decode(), **json.loads(done.stderr))
