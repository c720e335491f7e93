"""Sliding windows in Redis. Redis adds and counts; it knows no limit and compares nothing.

Every window is a sorted set of entries by the microsecond Redis saw them. One script adds the cost to
all charged windows and tells how many entries each holds afterwards, so that N concurrent calls on any
number of nodes get N different counts. Calls that wait at the same time share a script. What the counts
mean is for Rego to say.
"""

from __future__ import annotations

import asyncio
import hashlib
import ssl
import uuid
from collections.abc import Awaitable, Sequence
from itertools import islice
from typing import Any, TypeAlias, TypeVar, cast

from redis.asyncio import Redis
from redis.asyncio.connection import BlockingConnectionPool, Connection, SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError

from mcp_server.infrastructure.telemetry import tracing
from mcp_server.infrastructure.tls import RenewedContext, renewed_client_context
from mcp_server.policy.batches import Batches
from mcp_server.policy.protocol import Charge, Count
from mcp_server.settings import CountersSettings

__all__ = ["Counters", "CountersUnavailable"]

_PREFIX = "mcp:window:"

# KEYS: the windows of one call or of several. ARGV, for each key: a name for the entries of its call,
# the window in seconds and the cost. Returns, for each key, how many entries it holds and the
# milliseconds until the oldest one leaves.
_CHARGE = """
local now = redis.call('TIME')
local now_us = now[1] * 1000000 + now[2]
local answer = {}
for i, key in ipairs(KEYS) do
  local window_us = ARGV[3 * i - 1] * 1000000
  redis.call('ZREMRANGEBYSCORE', key, '-inf', string.format('%.0f', now_us - window_us))
  for n = 1, tonumber(ARGV[3 * i]) do
    redis.call('ZADD', key, string.format('%.0f', now_us), ARGV[3 * i - 2] .. ':' .. n)
  end
  redis.call('PEXPIRE', key, string.format('%.0f', window_us / 1000))
  local oldest = redis.call('ZRANGE', key, 0, 0, 'WITHSCORES')
  local reset_us = oldest[2] + window_us - now_us
  answer[i] = {redis.call('ZCARD', key), math.ceil(reset_us / 1000)}
end
return answer
"""

# KEYS: the windows. ARGV: the name of a call's entries, then the cost of each. Takes the entries away.
_GIVE_BACK = """
for i, key in ipairs(KEYS) do
  for n = 1, tonumber(ARGV[1 + i]) do
    redis.call('ZREM', key, ARGV[1] .. ':' .. n)
  end
end
return 0
"""

# KEYS: the windows; ARGV: the seconds of each. Returns what _CHARGE returns and changes nothing.
_PEEK = """
local now = redis.call('TIME')
local now_us = now[1] * 1000000 + now[2]
local answer = {}
for i, key in ipairs(KEYS) do
  local window_us = ARGV[i] * 1000000
  local since = string.format('(%.0f', now_us - window_us)
  local oldest = redis.call('ZRANGE', key, since, '+inf', 'BYSCORE', 'LIMIT', 0, 1, 'WITHSCORES')
  local reset_us = 0
  if oldest[2] then reset_us = oldest[2] + window_us - now_us end
  answer[i] = {redis.call('ZCOUNT', key, since, '+inf'), math.ceil(reset_us / 1000)}
end
return answer
"""

_T = TypeVar("_T")
_Call: TypeAlias = tuple[str, Sequence[Charge]]
"""The name of a call's entries, and its charges."""


class CountersUnavailable(Exception):
    """Redis did not answer; the message is for the log."""


class _TlsConnection(Connection):
    """TLS as elsewhere in this server.

    The library's own class makes a context for each connection, and each trusts and holds in memory
    all certificate authorities of the system beside ours.
    """

    def __init__(self, *, context: RenewedContext, **options: Any) -> None:
        super().__init__(**options)
        self._context = context

    def _connection_arguments(self) -> dict[str, Any]:
        return {**super()._connection_arguments(), "ssl": self._context()}


class Counters:
    """The rate-limit windows. One per process; connections are made on demand.

    Attributes:
        up: whether the latest use or probe of Redis worked; the policy is told.
    """

    def __init__(self, settings: CountersSettings) -> None:
        self._timeout_s = settings.timeout_s
        options: dict[str, Any] = dict(parse_url(settings.url))
        if options.pop("connection_class", None) is SSLConnection:
            options["connection_class"] = _TlsConnection
            options["context"] = (
                renewed_client_context(settings.ca)
                if settings.ca
                else RenewedContext(ssl.create_default_context, lambda: ())
            )
        pool = BlockingConnectionPool(
            **options,
            password=settings.password.reveal() if settings.password else None,
            max_connections=settings.max_connections,
            timeout=settings.timeout_s,
            socket_timeout=settings.timeout_s,
            socket_connect_timeout=settings.timeout_s,
            # After a restart of Redis every pooled connection is dead, and says so at its next use only.
            # Twice is as good as once: the entries of a call carry its name.
            retry=Retry(NoBackoff(), 1, supported_errors=(RedisConnectionError,)),
            # CLIENT SETINFO is unknown to Redis 7.0 and not in the ACL.
            driver_info=None,
        )
        self._redis = Redis(connection_pool=pool)
        self._charge = self._redis.register_script(_CHARGE)
        self._batches = Batches[_Call, tuple[Count, ...]](self._charge_one, self._charge_many)
        self._give_back = self._redis.register_script(_GIVE_BACK)
        self._peek = self._redis.register_script(_PEEK)
        self.up = False

    async def stop(self) -> None:
        """Close all connections."""
        await self._redis.aclose(close_connection_pool=True)

    async def first(self, name: str, *, within_s: int) -> bool:
        """Tell whether this is the first use of a name within a time, on any node.

        Raises:
            CountersUnavailable: Redis did not answer.
        """
        digest = hashlib.sha256(name.encode()).hexdigest()
        once = Charge(id="once", key=f"once:{digest}", limit=1, window_s=within_s, cost=1)
        (count,) = await self.charge(uuid.uuid4().hex, (once,))
        return count.count == 1

    async def charge(self, entry: str, charges: Sequence[Charge]) -> tuple[Count, ...]:
        """Add every charge's cost to its window, all in one atomic step.

        Args:
            entry: a name unique to this call, by which `give_back` finds the entries again.
            charges: what OPA said applies; not empty.

        Returns:
            One count for each charge, in their order.

        Raises:
            CountersUnavailable: Redis did not answer in time; nothing is known of the charge, and it
                leaves its window by itself.
        """
        return await self._deadline("charge", self._batches.ask((entry, charges)))

    async def _charge_one(self, call: _Call) -> tuple[Count, ...]:
        (counts,) = await self._charge_many([call])
        return counts

    async def _charge_many(self, calls: Sequence[_Call]) -> list[tuple[Count, ...]]:
        """Charge the calls one after the other in one script, so each gets the counts of its turn."""
        keys: list[str] = []
        arguments: list[str | int] = []
        for entry, charges in calls:
            keys += _keys(charges)
            for charge in charges:
                arguments += [entry, charge.window_s, charge.cost]
        pairs = iter(await self._charge(keys=keys, args=arguments))
        return [_counts(charges, list(islice(pairs, len(charges)))) for _, charges in calls]

    async def peek(self, charges: Sequence[Charge]) -> tuple[Count, ...]:
        """Return what each window holds, and charge nothing.

        Raises:
            CountersUnavailable: as `charge`.
        """
        windows = [charge.window_s for charge in charges]
        work = self._peek(keys=_keys(charges), args=windows)
        return _counts(charges, await self._deadline("peek", work))

    async def give_back(self, entry: str, charges: Sequence[Charge]) -> None:
        """Take the entries of `charge` away again.

        Raises:
            CountersUnavailable: as `charge`; the entries then stay until their window ends.
        """
        arguments: list[str | int] = [entry, *(charge.cost for charge in charges)]
        await self._deadline("give_back", self._give_back(keys=_keys(charges), args=arguments))

    async def probe(self) -> bool:
        """Ask Redis for a sign of life, and return (and keep) whether it gave one."""
        try:
            await self._deadline("ping", self._redis.ping())
        except CountersUnavailable:
            return False
        return True

    async def _deadline(self, name: str, work: Awaitable[_T]) -> _T:
        try:
            with tracing.span(f"counters.{name}"):
                async with asyncio.timeout(self._timeout_s):
                    result = await work
        except (RedisError, OSError, TimeoutError) as error:
            self.up = False
            raise CountersUnavailable(f"Redis: {type(error).__name__}: {error}") from error
        self.up = True
        return result


def _counts(charges: Sequence[Charge], answer: object) -> tuple[Count, ...]:
    pairs = cast("list[tuple[int, int]]", answer)
    return tuple(
        Count(charge=charge, count=int(count), reset_ms=max(int(reset_ms), 0))
        for charge, (count, reset_ms) in zip(charges, pairs, strict=True)
    )


def _keys(charges: Sequence[Charge]) -> list[str]:
    return [_PREFIX + charge.key for charge in charges]
