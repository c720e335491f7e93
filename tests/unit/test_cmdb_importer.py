"""A list of assets is checked as a whole before anything is written."""

from __future__ import annotations

from typing import Any

import pytest

from mcp_server.tools.cmdb.importer import InvalidAssets, parse_assets
from mcp_server.tools.cmdb.model import AssetStatus


def _row(**changes: Any) -> dict[str, Any]:
    return {"id": "a", "name": "a", "type": "server", "environment": "prod"} | changes


def test_what_may_be_left_out_has_a_default() -> None:
    (asset,) = parse_assets([_row()])

    assert (asset.tenant, asset.status, asset.attributes) == ("default", AssetStatus.ACTIVE, {})


def test_the_same_id_in_two_tenants_is_two_assets() -> None:
    assert len(parse_assets([_row(tenant="one"), _row(tenant="two")])) == 2


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        (_row(type="router"), "row 1 ('a'): type: Input should be 'server', 'database' or"),
        (_row(environment="production"), "row 1 ('a'): environment: Input should be 'prod'"),
        (_row(ip_address="10.0.0.256"), "row 1 ('a'): ip_address: value is not a valid"),
        (_row(name=""), "row 1 ('a'): name: String should have at least 1 character"),
        (_row(colour="red"), "row 1 ('a'): colour: Extra inputs are not permitted"),
        (_row(last_updated="2026-01-01T00:00:00"), "row 1 ('a'): last_updated: Input should have"),
        (_row(name="a\0"), "row 1 ('a'): name: NUL characters cannot be stored"),
        (_row(attributes={"x": float("nan")}), "row 1 ('a'): attributes: holds what JSON"),
        (_row(attributes=[]), "row 1 ('a'): attributes: Input should be a valid dict"),
        ({"id": "a"}, "row 1 ('a'): name: Field required"),
        ("text", "row 1: Input should be a valid dictionary"),
    ],
)
def test_a_bad_row_is_named_with_its_field(row: object, fault: str) -> None:
    with pytest.raises(InvalidAssets) as caught:
        parse_assets([row])

    assert fault in str(caught.value)


def test_every_fault_is_listed() -> None:
    with pytest.raises(InvalidAssets) as caught:
        parse_assets([_row(type="x"), _row(id="b", environment="y"), _row(id="c")])

    assert [fault.split(":")[0] for fault in caught.value.faults] == ["row 1 ('a')", "row 2 ('b')"]


def test_a_repeated_id_names_both_rows() -> None:
    with pytest.raises(InvalidAssets, match=r"row 2 \('a'\): id: the same as in row 1"):
        parse_assets([_row(), _row(name="other")])


def test_a_long_list_of_faults_is_shortened() -> None:
    with pytest.raises(InvalidAssets, match="and 80 more"):
        parse_assets(["x"] * 100)


def test_a_document_that_is_no_list_is_refused() -> None:
    with pytest.raises(InvalidAssets, match="expected a list of assets, not dict"):
        parse_assets({"assets": []})
