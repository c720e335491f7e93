"""Charges of rate limits: made before a query to the policy, kept if it allows with exactly them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from mcp_server.gate.recorder import shielded
from mcp_server.infrastructure import telemetry
from mcp_server.policy import (
    Authorization,
    Charge,
    Count,
    Counters,
    CountersUnavailable,
    PolicyUnavailable,
)

__all__ = ["MAX_QUERIES", "give_back", "query_with_charges"]

MAX_QUERIES = 3
"""Queries of one request at most: it needs one or two; policies that change meanwhile cost another."""


async def query_with_charges(
    counters: Counters,
    entry: str,
    charges: tuple[Charge, ...],
    query: Callable[[Sequence[Count]], Awaitable[Authorization]],
) -> Authorization:
    """Charge each window, query the policy with the counts, and return its answer.

    The charge comes first, so that N concurrent requests on any number of nodes get N different counts.
    It is given back unless the policy allows the request with exactly these charges.

    Args:
        entry: id of the charge.
        query: queries the policy with the counts after the charge.

    Raises:
        CountersUnavailable: Redis did not answer.
        PolicyUnavailable: as `query`, or the policy allows other charges than were made.
    """
    keep = not charges
    try:
        counts = await counters.charge(entry, charges) if charges else ()
        answer = await query(counts)
        if answer.effect == "allow":
            if tuple(answer.charges) != charges:
                raise PolicyUnavailable("the policy allows a request that was not counted")
            keep = True
        return answer
    except CountersUnavailable:
        keep = True  # nothing is known of the charge; it leaves its window by itself
        raise
    finally:
        # After a cancellation it is not known whether Redis was charged: to give back removes this
        # request's own entries, if there are any. Only a charge that reaches Redis later, on another
        # connection, stays until its window ends.
        if not keep:
            await give_back(counters, entry, charges)


async def give_back(counters: Counters, entry: str, charges: Sequence[Charge]) -> None:
    """Remove a charge from its windows; without an answer of Redis it stays until they end."""
    if not charges:
        return
    try:
        await shielded(counters.give_back(entry, charges))
    except CountersUnavailable as error:
        telemetry.log.warning("charge_not_given_back", error=str(error))
