"""A request inside the gate: who calls, what for, and what is known of it so far."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Generic, Literal, TypeVar
from uuid import UUID

from mcp_server.audit import Effect, Outcome
from mcp_server.gate.errors import Refused
from mcp_server.identity import Subject
from mcp_server.policy import (
    Action,
    Authorization,
    ClientInfo,
    Context,
    DecisionInput,
    Obligations,
    Quota,
    Reason,
    Resource,
    SubjectInput,
)
from mcp_server.redaction import without_secrets

__all__ = [
    "DEFAULT_TIMEOUT_S",
    "Answer",
    "Call",
    "Caller",
    "InFlight",
    "ToolAnswer",
    "decision_input",
]

_T = TypeVar("_T")

DEFAULT_TIMEOUT_S = 15.0
"""Deadline in seconds of a call that names none."""


@dataclass(frozen=True, slots=True)
class Caller:
    """The authenticated subject, and the connection it uses.

    Attributes:
        ip: the client's address as canonical text.
        request_id: the id of the request, from the load balancer or made here.
        client_info: what the client program reports of itself; nobody verifies it.
    """

    subject: Subject
    ip: str
    user_agent: str
    request_id: str
    transport: Literal["mcp", "rest", "stdio", "cli"]
    client_info: ClientInfo = field(default_factory=ClientInfo)


@dataclass(frozen=True, slots=True)
class Call:
    """An MCP method on a resource.

    Attributes:
        arguments: validated and canonical: the policy decides about exactly what runs.
        tool: the tool's name for the audit row, where there is one.
        changes: whether the call changes something; its intent is then recorded first.
        timeout_s: the deadline of the work in seconds.
    """

    method: str
    resource: Resource
    arguments: Mapping[str, Any] = field(default_factory=dict)
    tool: str | None = None
    changes: bool = False
    timeout_s: float = DEFAULT_TIMEOUT_S


@dataclass(frozen=True, slots=True)
class Answer(Generic[_T]):
    """The result of the work, and what is left of the rate limits that were charged."""

    value: _T
    quota: tuple[Quota, ...]


@dataclass(frozen=True, slots=True)
class ToolAnswer:
    """The result of a tool after obligations, or the reason why there is none.

    Attributes:
        source: the system that the text came from; it must not be trusted with instructions.
        replayed: whether it is the stored answer of an earlier request (Idempotency-Key).
    """

    text: str
    structured: dict[str, Any] | None
    source: str
    is_error: bool = False
    retryable: bool = False
    replayed: bool = False


@dataclass(slots=True)
class InFlight:
    """One request in the pipeline. The steps fill it in; the recorder reads it.

    Attributes:
        policy_input: what OPA is asked.
        started: the arrival, by `time.perf_counter`.
        reasons: why the request was refused, or what the policy says about its permission.
        revision: the policy revision of the latest answer.
        permitted: whether the policy allowed the request and its rate limits admitted it.
        begun: whether the work has begun, so that a change may have been made.
        unrecordable: whether the audit log refused its intent, so that it was not made.
        outcome: how it ended, in one word.
        intent_id: the event_id of the audit row of the intent, if there is one.
        result: the text that the caller gets, of which the audit row has the digest.
    """

    caller: Caller
    call: Call
    policy_input: DecisionInput
    started: float
    reasons: tuple[Reason, ...] = ()
    revision: str = ""
    obligations: Obligations = field(default_factory=Obligations)
    quota: tuple[Quota, ...] = ()
    permitted: bool = False
    begun: bool = False
    unrecordable: bool = False
    outcome: Outcome = "error"
    intent_id: UUID | None = None
    result: str | None = None
    _decided: Effect = "deny"

    def decided(self, answer: Authorization) -> None:
        """Keep an answer of the policy; one that asks for counts decides nothing yet."""
        if answer.effect != "count":
            self._decided = answer.effect
        self.reasons, self.revision = tuple(answer.reasons), answer.revision

    def refuse(self, refusal: Refused) -> None:
        """Keep why the request ended; what the policy said about a permission stays with it."""
        self.outcome = refusal.outcome
        if not self.permitted:
            self.reasons = refusal.reasons

    @property
    def effect(self) -> Effect:
        """The effect for the audit: a request that was allowed and did not get through is denied."""
        return "deny" if self._decided == "allow" and not self.permitted else self._decided

    @property
    def duration_s(self) -> float:
        """Seconds since the arrival."""
        return time.perf_counter() - self.started

    @property
    def may_go_unrecorded(self) -> bool:
        """Whether the policy allowed the request knowing that the audit log is down."""
        return self.permitted and self.policy_input.context.audit == "down"


def decision_input(
    caller: Caller, call: Call, *, node: str, counters_up: bool, audit_up: bool
) -> DecisionInput:
    """Return what OPA is asked about a call; arguments that hold a secret are withheld."""
    subject = caller.subject
    return DecisionInput(
        subject=SubjectInput(
            id=subject.id,
            tenant=subject.tenant,
            roles=subject.roles,
            groups=subject.groups,
            scopes=subject.scopes,
            token_id=subject.token_id,
            issuer=subject.issuer,
            client_id=subject.client_id,
            actor=subject.actor,
            networks=subject.networks,
        ),
        action=Action(call.method, *without_secrets(call.arguments)),
        resource=call.resource,
        context=Context(
            ip=caller.ip,
            time=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            node=node,
            request_id=caller.request_id,
            transport=caller.transport,
            counters="up" if counters_up else "down",
            audit="up" if audit_up else "down",
        ),
        client_info=caller.client_info,
    )
