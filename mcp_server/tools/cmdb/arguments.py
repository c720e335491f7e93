"""Types of arguments that several CMDB tools share."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from mcp_server.tools.cmdb.backend import NAME
from mcp_server.tools.validation import TextFormat

__all__ = ["SOURCE", "AssetId", "ServiceName", "Status", "Text", "TimeRange", "storable"]

SOURCE = f"the {NAME}"
"""The CMDB, as results and resources name the source of their text."""

Status = Literal["active", "inactive", "maintenance"]


def storable(text: str) -> str:
    """Return `text`.

    Raises:
        ValueError: it contains NUL characters, which PostgreSQL cannot store.
    """
    if "\0" in text:
        raise ValueError("must not contain NUL characters")
    return text


Text = Annotated[str, Field(min_length=1, max_length=256), AfterValidator(storable)]
AssetId = Annotated[Text, Field(description="Id of an asset, as cmdb_query_assets lists it")]
ServiceName = Annotated[Text, Field(description="Name or id of the service")]
TimeRange = Annotated[
    str,
    Field(description="Back from now, in m, h, d or w"),
    TextFormat(
        r"^[1-9][0-9]{0,3}[mhdw]$", "must be a number from 1 to 9999 and m, h, d or w, such as 7d"
    ),
]
