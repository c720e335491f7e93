"""What a message reports of the client program, in both eras of the protocol."""

from __future__ import annotations

from typing import Any

import pytest

from mcp_server.policy import ClientInfo
from mcp_server.transports.client_info import reported_client

_INFO = {"name": "editor", "version": "1.2"}
_META = "io.modelcontextprotocol/clientInfo"


def test_each_request_of_the_newer_era_reports_it() -> None:
    message = {"method": "tools/call", "params": {"name": "x", "_meta": {_META: _INFO}}}

    assert reported_client(message) == ClientInfo("editor", "1.2")


def test_the_handshake_reports_it() -> None:
    message = {"method": "initialize", "params": {"clientInfo": _INFO}}

    assert reported_client(message) == ClientInfo("editor", "1.2")


@pytest.mark.parametrize(
    "message",
    [
        {"method": "ping"},
        {"method": "ping", "params": []},
        {"method": "ping", "params": {"clientInfo": _INFO}},
        {"method": "initialize", "params": {"_meta": {_META: _INFO}}},
        {"method": "ping", "params": {"_meta": None}},
        {"method": "ping", "params": {"_meta": {_META: "editor"}}},
        {"method": "ping", "params": {"_meta": {_META: {"name": 7, "version": None}}}},
        {"method": "ping", "params": {"_meta": {_META: {"name": "a\x00b", "version": "\n"}}}},
    ],
    ids=str,
)
def test_a_message_without_a_usable_report_reports_nothing(message: dict[str, Any]) -> None:
    assert reported_client(message) == ClientInfo()


def test_of_a_long_name_the_beginning_is_kept() -> None:
    info = {"name": "n" * 1000, "version": "v" * 257}

    assert reported_client({"method": "initialize", "params": {"clientInfo": info}}) == ClientInfo(
        "n" * 256, "v" * 256
    )
