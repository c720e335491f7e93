"""URIs of documents and templates."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import pytest

from mcp_server.gate.resource_reads import Completion, Resources
from mcp_server.tools.catalog import Scope, ToolContext
from mcp_server.tools.resources import Resource


async def _read(_context: ToolContext, _parameters: Mapping[str, str]) -> str:
    return "{}"


def document(uri: str) -> Resource:
    return Resource(
        uri=uri,
        name="n",
        title="t",
        description="d",
        permission="tools:read",
        read=_read,
        source="the test",
    )


ASSETS = document("enterprise://cmdb/assets")
ASSET = document("enterprise://cmdb/assets/{id}")


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("enterprise://cmdb/assets/web-1", {"id": "web-1"}),
        ("enterprise://cmdb/assets/a%2Fb%20c", {"id": "a/b c"}),
        ("enterprise://cmdb/assets/%2541", {"id": "%41"}),
        ("enterprise://cmdb/assets/", None),
        ("enterprise://cmdb/assets/a/b", None),
        ("enterprise://cmdb/assets/a?x=1", None),
        ("enterprise://cmdb/assets/a%0Ab", None),
        ("enterprise://cmdb/assets/a%2", None),
        ("enterprise://cmdb/assets/a\n", None),
        ("enterprise://CMDB/assets/a", None),
    ],
)
def test_a_template_takes_one_encoded_segment(uri: str, expected: dict[str, str] | None) -> None:
    assert ASSET.match(uri) == expected


def test_a_uri_finds_its_document_and_the_parameters() -> None:
    resources = Resources([ASSET, ASSETS])

    assert resources.find("enterprise://cmdb/assets") == (ASSETS, {})
    assert resources.find("enterprise://cmdb/assets/x") == (ASSET, {"id": "x"})
    assert resources.find("enterprise://cmdb") is None


def test_a_document_knows_its_family_and_parameters() -> None:
    assert (ASSET.family, ASSET.parameters, ASSETS.parameters) == ("cmdb", ("id",), ())


def test_a_template_names_the_resource_that_the_policy_judges() -> None:
    template = dataclasses.replace(
        document("enterprise://k8s/{cluster}/namespaces/{name}"),
        scope=Scope(cluster="cluster", namespace="name"),
    )

    assert template.properties({"cluster": "a", "name": "b"}) == {"cluster": "a", "namespace": "b"}
    assert template.properties({"cluster": "a"}) == {"cluster": "a"}


@pytest.mark.parametrize(
    ("count", "total", "has_more"), [(0, 0, False), (100, 100, False), (101, None, True)]
)
def test_a_completion_holds_at_most_a_hundred_values(
    count: int, total: int | None, has_more: bool
) -> None:
    found = Completion.of(str(number) for number in range(count))

    assert len(found.values) == min(count, 100)
    assert (found.total, found.has_more) == (total, has_more)


def test_a_completion_from_a_part_of_what_there_is_says_so() -> None:
    found = Completion.of(["a"], all_seen=False)

    assert (found.values, found.total, found.has_more) == (("a",), None, True)
