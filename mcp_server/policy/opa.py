"""The client of the OPA sidecar: anything but a well-formed answer raises, and the gate denies."""

from __future__ import annotations

import asyncio
import json
import time
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, TypeVar

import aiohttp
from opa_client.opa_async import AsyncOpaClient
from pydantic import ValidationError

from mcp_server.infrastructure import telemetry
from mcp_server.infrastructure.telemetry import tracing
from mcp_server.policy.batches import Batches
from mcp_server.policy.protocol import (
    PROTOCOL_VERSION,
    Authorization,
    Canary,
    Count,
    DecisionInput,
    Entitlements,
    SignInInput,
    Visible,
)
from mcp_server.settings import PolicySettings

__all__ = ["PolicyEngine", "PolicyUnavailable", "PolicyUndecided"]

_PACKAGE = "mcp.decision"
# Entry points outside of that package, by the names that they have in metrics: package and rule.
_ELSEWHERE = {"sign_in": ("mcp.sign_in", "authorize")}
# Without this a built-in that fails (a CIDR check on a malformed address) is undefined and passes on.
_STRICT = {"strict-builtin-errors": "true"}
_VISIBLE_CACHE_SIZE = 1024
_LONGEST_FAULT = 500  # characters of OPA's message about a rule that failed

_AnswerT = TypeVar("_AnswerT", Authorization, Visible, Entitlements, Canary)


class PolicyUnavailable(Exception):
    """OPA gave no usable answer; the request is denied. The message is for the log, not the client."""


class PolicyUndecided(PolicyUnavailable):
    """A rule failed on this input. Other nodes have the same rules, and fail as well."""


class _RuleFailed(Exception):
    """OPA could not evaluate a query; the message is OPA's."""


class _SocketClient(AsyncOpaClient):  # type: ignore[misc] # the package ships no type information
    """`AsyncOpaClient` over the sidecar's Unix socket, which the library has no parameter for."""

    def __init__(self, socket: str, timeout_s: float) -> None:
        super().__init__(host="opa", retries=1, timeout=timeout_s)
        self._socket = socket

    async def _init_session(self) -> None:
        self._connector = aiohttp.UnixConnector(path=self._socket, limit=0)
        self._session = aiohttp.ClientSession(
            connector=self._connector,
            timeout=aiohttp.ClientTimeout(total=self.timeout),
            cookie_jar=aiohttp.DummyCookieJar(),
            raise_for_status=_raise_rule_failure,
        )


async def _raise_rule_failure(response: aiohttp.ClientResponse) -> None:
    """Keep OPA's message about a rule that failed; the library only checks the status.

    Raises:
        _RuleFailed: OPA answered that it could not evaluate the query for its input.
    """
    if response.status != 500:
        return
    said = await response.json()
    faults = said.get("errors") if isinstance(said, dict) else None
    if isinstance(faults, list) and faults:
        raise _RuleFailed("; ".join(map(_fault, faults))[:_LONGEST_FAULT])


def _fault(error: Any) -> str:
    if not isinstance(error, dict):
        return str(error)
    location = error.get("location")
    at = f"{location.get('file')}:{location.get('row')}: " if isinstance(location, dict) else ""
    return f"{at}{error.get('message')}"


class PolicyEngine:
    """Queries the sidecar. One per process; `start` and `stop` own its connections.

    Attributes:
        revision: the policy revision of the latest answer, or the empty string before the first.
    """

    def __init__(self, settings: PolicySettings) -> None:
        self._timeout_s = settings.timeout_s
        self._client = _SocketClient(str(settings.socket), settings.timeout_s)
        self._batches = Batches(self._query_one, self._query_batch)
        self._visible: OrderedDict[tuple[str, str], Visible] = OrderedDict()
        self.revision = ""
        # From the start: no rate shows the first fault of a series that begins with it.
        for entry in ("authorize", "sign_in", "visible", "entitlements", "canary"):
            for effect in ("unavailable", "undecided"):
                telemetry.DECISIONS.labels(entry, effect)

    async def start(self) -> None:
        """Open the connection pool (nothing is sent yet)."""
        await self._client._init_session()

    async def stop(self) -> None:
        """Close all connections."""
        await self._client.close_connection()

    async def authorize(
        self, policy_input: DecisionInput, counts: Sequence[Count] = ()
    ) -> Authorization:
        """Return whether the request may run, given the counts of Redis.

        Raises:
            PolicyUnavailable: no answer in time, or one that is not of the protocol.
            PolicyUndecided: a rule failed on this input.
        """
        answer = await self._ask("authorize", policy_input.to_json(counts), Authorization)
        telemetry.DECISIONS.labels("authorize", answer.effect).inc()
        return answer

    async def sign_in(
        self, policy_input: SignInInput, counts: Sequence[Count] = ()
    ) -> Authorization:
        """Return whether an attempt to sign in may be made, given the counts of Redis.

        Raises:
            PolicyUnavailable: as `authorize`.
        """
        answer = await self._ask("sign_in", policy_input.to_json(counts), Authorization)
        telemetry.DECISIONS.labels("sign_in", answer.effect).inc()
        return answer

    async def visible(self, policy_input: DecisionInput) -> Visible:
        """Return what the subject could be allowed; cached for one policy revision and one minute.

        The cache's key has everything by which a policy can tell callers apart, with the time as a
        minute. It leaves out what is new with each request: the token and the request's id.

        Raises:
            PolicyUnavailable: as `authorize`.
        """
        subject, context = policy_input.subject, policy_input.context
        client = policy_input.client_info
        key = (
            self.revision,
            json.dumps(
                [
                    policy_input.action.name,
                    context.ip,
                    context.transport,
                    context.time[: len("2026-01-01T00:00")],
                    context.counters,
                    context.audit,
                    subject.id,
                    subject.tenant,
                    subject.roles,
                    subject.groups,
                    subject.scopes,
                    subject.issuer,
                    subject.client_id,
                    subject.actor,
                    subject.networks,
                    client.name,
                    client.version,
                ]
            ),
        )
        if self.revision and (known := self._visible.get(key)) is not None:
            return known
        visible = await self._ask("visible", policy_input.to_json(), Visible)
        self._visible[visible.revision, key[1]] = visible
        if len(self._visible) > _VISIBLE_CACHE_SIZE:
            self._visible.popitem(last=False)
        return visible

    async def entitlements(
        self, policy_input: DecisionInput, counts: Sequence[Count]
    ) -> Entitlements:
        """Return what the subject may do and, with `counts`, the rest of each rate limit.

        Raises:
            PolicyUnavailable: as `authorize`.
        """
        return await self._ask("entitlements", policy_input.to_json(counts), Entitlements)

    async def canary(self) -> Canary:
        """Return how the policy decides two inputs with known answers.

        Raises:
            PolicyUnavailable: as `authorize`.
        """
        return await self._ask("canary", {"version": PROTOCOL_VERSION}, Canary)

    async def _query_one(self, policy_input: dict[str, Any]) -> Any:
        return await self._query("authorize", policy_input)

    async def _query(self, entry: str, policy_input: dict[str, Any]) -> Any:
        package, rule = _ELSEWHERE.get(entry, (_PACKAGE, entry))
        return await self._client.query_rule(
            input_data=policy_input, package_path=package, rule_name=rule, query_params=_STRICT
        )

    async def _query_batch(self, inputs: Sequence[dict[str, Any]]) -> list[Any]:
        body = await self._client.query_rule(
            input_data={"questions": {str(number): each for number, each in enumerate(inputs)}},
            package_path="mcp.batch",
            rule_name="answers",
            query_params=_STRICT,
        )
        answers = [body["result"].get(str(number)) for number in range(len(inputs))]
        return [None if answer is None else {"result": answer} for answer in answers]

    async def _ask(self, entry: str, document: dict[str, Any], kind: type[_AnswerT]) -> _AnswerT:
        started = time.perf_counter()
        try:
            with tracing.span(f"policy.{entry}"):
                async with asyncio.timeout(self._timeout_s):
                    if entry == "authorize":
                        body = await self._batches.ask(document)
                    else:
                        body = await self._query(entry, document)
        except TimeoutError:
            raise _unavailable(entry, f"no answer within {self._timeout_s} s") from None
        except _RuleFailed as failed:
            telemetry.DECISIONS.labels(entry, "undecided").inc()
            raise PolicyUndecided(f"OPA {entry}: {failed}") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise _unavailable(entry, f"{type(error).__name__}: {error}") from error
        finally:
            telemetry.DECISION_SECONDS.labels(entry).observe(time.perf_counter() - started)
        # OPA answers 200 without `result` when the path is undefined: no bundle, or a broken one.
        if not isinstance(body, dict) or "result" not in body:
            raise _unavailable(entry, "the answer holds no result: is a bundle active?")
        try:
            answer = kind.model_validate(body["result"])
        except ValidationError as error:
            faults = "; ".join(
                f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}"
                for fault in error.errors(include_url=False, include_input=False)
            )
            raise _unavailable(
                entry, f"the answer is not of protocol version {PROTOCOL_VERSION}: {faults}"
            ) from None
        self.revision = answer.revision
        return answer


def _unavailable(entry: str, why: str) -> PolicyUnavailable:
    telemetry.DECISIONS.labels(entry, "unavailable").inc()
    return PolicyUnavailable(f"OPA {entry}: {why}")
