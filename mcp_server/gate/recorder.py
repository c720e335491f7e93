"""Records each request: audit rows, metrics, and one line in the log."""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from collections.abc import Coroutine, Set
from datetime import UTC, datetime
from functools import lru_cache
from ipaddress import ip_address
from typing import Any

from anyio import CancelScope
from mcp_types.methods import SPEC_CLIENT_METHODS

from mcp_server.audit import AuditReason, AuditRecord, AuditStore, AuditUnavailable, Phase
from mcp_server.gate.errors import audit_unavailable, outcome_not_recorded
from mcp_server.gate.request import InFlight
from mcp_server.infrastructure import telemetry
from mcp_server.infrastructure.telemetry import tracing
from mcp_server.policy import DecisionInput, SubjectInput
from mcp_server.redaction import RedactedArguments, redact_arguments

__all__ = ["Recorder", "shielded"]

_POLICY_INPUT_LIMIT = 4 * 1024  # bytes of JSON in a row, for the subject and for the resource each


class Recorder:
    """Writes the audit rows of requests: the intent of a change, and the outcome of every request.

    Args:
        node: this node's name.
        tools: the names of the catalogue, which metrics may name.
        digests: whether an outcome has the SHA-256 and the size of its result.
    """

    def __init__(
        self, node: str, audit: AuditStore, tools: Set[str], *, digests: bool = True
    ) -> None:
        self._node = node
        self._digests = digests
        self._audit = audit
        self._tools = tools

    async def record_intent(self, request: InFlight) -> None:
        """Commit the intent of a change before it is made; a read has none.

        Raises:
            Refused: the intent cannot be recorded, so the change must not be made.
        """
        if not request.call.changes:
            return
        try:
            row = self._row(request, Phase.INTENT)
            await self._audit.commit(row)
            request.intent_id = row.event_id
        except AuditUnavailable as error:
            if request.may_go_unrecorded:
                _count_unrecorded(request, error)
                return
            request.unrecordable = True
            telemetry.log.error("audit_unavailable", error=str(error))
            raise audit_unavailable() from error

    async def record_outcome(self, request: InFlight) -> None:
        """Commit the outcome before the caller gets the answer, also while the call is cancelled.

        A request that was not permitted is recorded where that is possible: its refusal stands anyway.

        Raises:
            Refused: the outcome cannot be recorded, so the caller gets no answer.
            OutcomeNotRecorded: the same, of a change that may have been made.
        """
        if request.unrecordable:
            return
        if not request.permitted:
            await self.record_refusal(request)
            return
        try:
            await shielded(self._audit.commit(self._row(request, Phase.OUTCOME)))
        except AuditUnavailable as error:
            if request.may_go_unrecorded:
                _count_unrecorded(request, error)
                return
            telemetry.log.error("audit_unavailable", error=str(error))
            if request.outcome == "cancelled":
                return  # nobody waits for an answer, and the cancellation has to go on
            raise (
                outcome_not_recorded() if request.call.changes else audit_unavailable()
            ) from error

    async def record_refusal(self, request: InFlight) -> None:
        """Commit the outcome of a request that was not made, where the audit log is available."""
        if not self._audit.healthy:
            return
        try:
            await self._audit.commit(self._row(request, Phase.OUTCOME))
        except AuditUnavailable as error:
            # The refusal stands; the store reports lost rows by itself.
            telemetry.log.warning("refusal_not_recorded", error=str(error))

    def observe(self, request: InFlight) -> None:
        """Count a request that has ended and log one line about it."""
        caller, call = request.caller, request.call
        duration_s = request.duration_s
        # A client may send any text as a method or a tool, and each would be a time series of its own.
        method = call.method if call.method in SPEC_CLIENT_METHODS else "other"
        tool = call.tool if call.tool is not None and call.tool in self._tools else ""
        telemetry.REQUESTS.labels(method, tool, request.outcome).inc()
        telemetry.REQUEST_SECONDS.labels(method, tool).observe(duration_s)
        tracing.annotate(
            {
                "mcp.method.name": method,
                "mcp.request_id": caller.request_id,
                "mcp.transport": caller.transport,
                "mcp.outcome": request.outcome,
                "policy.effect": request.effect,
                "policy.revision": request.revision,
                "enterprise_mcp.tool": tool,
            },
            failed=request.outcome != "ok",
        )
        telemetry.log.info(
            "request",
            request_id=caller.request_id,
            method=call.method,
            tool=call.tool,
            user=caller.subject.id,
            tenant=caller.subject.tenant,
            outcome=request.outcome,
            effect=request.effect,
            codes=[reason.code for reason in request.reasons],
            duration_ms=round(duration_s * 1000, 2),
        )

    def _row(self, request: InFlight, phase: Phase) -> AuditRecord:
        caller, call = request.caller, request.call
        result = None
        if self._digests and request.result is not None:
            result = request.result.encode(errors="surrogatepass")
        return AuditRecord(
            time=datetime.now(UTC),
            event_id=uuid.uuid4(),
            request_id=caller.request_id,
            phase=phase,
            node=self._node,
            transport=caller.transport,
            method=call.method,
            user_id=caller.subject.id,
            tenant=caller.subject.tenant,
            tool=call.tool
            or (call.resource.id if call.resource.type in ("resource", "prompt") else None),
            arguments=redact_arguments(call.arguments),
            client_ip=ip_address(caller.ip),
            user_agent=caller.user_agent,
            effect=request.effect,
            reasons=[AuditReason(**reason.model_dump()) for reason in request.reasons],
            policy_revision=request.revision,
            duration_ms=request.duration_s * 1000,
            outcome=request.outcome if phase is Phase.OUTCOME else None,
            judged=_rest_of_policy_input(request.policy_input),
            intent_id=request.intent_id,
            result_sha256=None if result is None else hashlib.sha256(result).digest(),
            result_bytes=None if result is None else len(result),
        )


async def shielded(work: Coroutine[Any, Any, None]) -> None:
    """Await work that has to end although the call is cancelled; it must have a deadline of its own.

    The SDK cancels every await of a call whose client is gone, not only the first: `finally` alone does
    not protect.
    """
    task = asyncio.current_task()
    with CancelScope(shield=True):
        if task is not None and task.cancelling():
            # In a cancelled task a deadline raises no TimeoutError before Python 3.11.4: the work gets
            # a task of its own.
            await asyncio.shield(work)
        else:
            await work


def _count_unrecorded(request: InFlight, error: AuditUnavailable) -> None:
    telemetry.UNRECORDED.inc()
    telemetry.log.warning(
        "request_not_recorded", request_id=request.caller.request_id, error=str(error)
    )


def _rest_of_policy_input(policy_input: DecisionInput) -> RedactedArguments:
    """Return the parts of the policy's input that have no column of their own in the row."""
    subject, resource, context = policy_input.subject, policy_input.resource, policy_input.context
    client = policy_input.client_info
    who = _subject_json(subject)
    what = redact_arguments(
        {
            "client_info": {"name": client.name, "version": client.version},
            "resource": {
                "type": resource.type,
                "id": resource.id,
                "properties": resource.properties,
            },
            "withheld": policy_input.action.withheld,
        },
        limit=_POLICY_INPUT_LIMIT,
    )
    return RedactedArguments(
        f'{{"time":"{context.time}","counters":"{context.counters}","audit":"{context.audit}",'
        f'"subject":{who.json},{what.json[1:]}'
    )


@lru_cache(maxsize=1024)
def _subject_json(subject: SubjectInput) -> RedactedArguments:
    # The end of a long object is cut; the groups come last because some companies have very many.
    return redact_arguments(
        {
            "issuer": subject.issuer,
            "client_id": subject.client_id,
            "actor": subject.actor,
            "networks": subject.networks,
            "jti": subject.token_id,
            "scopes": subject.scopes,
            "roles": subject.roles,
            "groups": subject.groups,
        },
        limit=_POLICY_INPUT_LIMIT,
    )
