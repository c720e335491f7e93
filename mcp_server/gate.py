"""The one way every request goes: subject, decision, charge, run, audit, answer.

MCP, REST and stdio are thin transports that call this module. It compares no role, no limit and no address:
OPA does. What it guarantees is the order of the steps, and that every way out of them other than a
well-formed permission is a refusal.
"""

from __future__ import annotations

import asyncio
import dataclasses
import re
import time
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from ipaddress import ip_address
from typing import Any, Generic, Literal, TypeVar

from anyio import CancelScope
from mcp_types.methods import SPEC_CLIENT_METHODS

from mcp_server import telemetry
from mcp_server.audit.record import AuditReason, AuditRecord, Phase
from mcp_server.audit.store import AuditStore, AuditUnavailable
from mcp_server.identity import Subject
from mcp_server.policy.counters import Counters, CountersUnavailable
from mcp_server.policy.opa import PolicyEngine, PolicyUnavailable, PolicyUndecided
from mcp_server.policy.protocol import (
    Action,
    Admission,
    Charge,
    Context,
    Decision,
    DecisionInput,
    Entitlements,
    Obligations,
    Quota,
    Reason,
    Resource,
    SubjectInput,
    Visible,
)
from mcp_server.redaction import (
    RedactedArguments,
    redact_arguments,
    redact_text,
    without_secrets,
)
from mcp_server.redaction.masking import mask_fields, mask_text
from mcp_server.tools.backend import OutcomeUnknown
from mcp_server.tools.catalog import Catalog, InvalidArguments, Tool, ToolContext, ToolError
from mcp_server.tools.deadline import Deadlines
from mcp_server.tools.presentation import marked, presented

__all__ = [
    "Answer",
    "Call",
    "Caller",
    "Failed",
    "Gate",
    "InternalError",
    "Limited",
    "NodeUnavailable",
    "OutcomeNotRecorded",
    "Progress",
    "Refused",
    "ToolAnswer",
    "tool_context",
]

_T = TypeVar("_T")
Progress = Callable[[float, float | None, str], Awaitable[None]]
"""Hears how far a long call is: what is done, of how much (where known), and a message for people."""

_NODE_CANNOT_DECIDE = "this node cannot decide at the moment; the call was not made, try again"
_NOT_RECORDED = "the call cannot be recorded at the moment, so it gets no answer; try again"
_CHANGE_NOT_RECORDED = (
    "the change may have been made, and its outcome cannot be recorded at the moment; look before you "
    "try again"
)
_JUDGED_LIMIT = 4 * 1024  # bytes of JSON in a row, for who asks and for what is asked each
_DEADLINE_S = 15.0
_WIRE_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
_ABSENT = Reason(
    code="not_available",
    message="there is no such tool, resource or prompt, or it is not available to you",
    rule="",
    solution="list what is available to you; ask an administrator for a role if something is missing",
)
# In the words of the policy itself, where its data is broken.
_UNDECIDED = Reason(
    code="undecided",
    message="the policy could not decide",
    rule="",
    solution="ask an administrator to look at the policy's rules: one failed on this call",
)
_NO_COUNTERS = "rate limits cannot be counted at the moment; the call was not made, try again"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls, and over which way.

    Attributes:
        ip: the client's address as canonical text.
        request_id: one id for the request, from the load balancer or made here.
    """

    subject: Subject
    ip: str
    user_agent: str
    request_id: str
    transport: Literal["mcp", "rest", "stdio"]


@dataclass(frozen=True, slots=True)
class Call:
    """What is asked: an MCP method on a resource.

    Attributes:
        arguments: checked and canonical: exactly what will run is what is judged.
        tool: the tool's name for the audit, where there is one.
        changes: whether the call changes something, so that its intent is recorded first.
        timeout_s: the deadline of the work in seconds.
    """

    method: str
    resource: Resource
    arguments: Mapping[str, Any] = field(default_factory=dict)
    tool: str | None = None
    changes: bool = False
    timeout_s: float = _DEADLINE_S


@dataclass(frozen=True, slots=True)
class Answer(Generic[_T]):
    """The result of the work, and what is left of the rate limits that were charged."""

    value: _T
    quota: tuple[Quota, ...]


@dataclass(frozen=True, slots=True)
class ToolAnswer:
    """What a tool returned after obligations, or why it could not.

    Attributes:
        source: the system that the text came from, which is not to be trusted with instructions.
    """

    text: str
    structured: dict[str, Any] | None
    source: str
    is_error: bool = False
    retryable: bool = False


class Refused(Exception):
    """The policy did not allow the call (or nothing could be asked or recorded); nothing was changed.

    Attributes:
        reasons: for the client: what happened and what would help.
        retryable: whether the same call may be allowed a little later without any change.
        revision: the policy revision that refused, or the empty string.
    """

    def __init__(
        self, reasons: Sequence[Reason], *, retryable: bool = False, revision: str = ""
    ) -> None:
        super().__init__("; ".join(reason.message for reason in reasons) or "refused")
        self.reasons = tuple(reasons)
        self.retryable = retryable
        self.revision = revision


class Failed(Exception):
    """What was allowed did not work; the message is for the caller, without secrets.

    Attributes:
        source: the system whose words may stand in the message, marked as its data; None: the message
            is the server's own.
        retryable: whether the same may work a little later.
    """

    def __init__(self, message: str, *, source: str | None = None, retryable: bool = False) -> None:
        super().__init__(message)
        self.source = source
        self.retryable = retryable


class Limited(Refused):
    """A rate limit is used up; nothing was done and nothing was charged."""

    def __init__(self, admission: Admission) -> None:
        super().__init__(admission.reasons, retryable=True, revision=admission.revision)
        self.retry_after_ms = admission.retry_after_ms
        self.quota = tuple(admission.quota)


class OutcomeNotRecorded(Refused):
    """A change was tried and its outcome could not be recorded: unlike other refusals, it may be made.

    Its intent is in the audit log. It is not retryable: whoever repeats it may make it twice.
    """


class NodeUnavailable(Refused):
    """This node's policy sidecar gives no usable answer; another node may. Nothing was done."""


class InternalError(Exception):
    """The server itself failed; its log says how, under the request's id, and the caller is not told.

    Attributes:
        request_id: the request's.
        begun: whether the work had begun, so that a change may have been made.
    """

    def __init__(self, request_id: str, *, begun: bool = False) -> None:
        super().__init__(
            f"the server failed in a way that was not foreseen; its log says more (request {request_id})"
        )
        self.request_id = request_id
        self.begun = begun


_OUTCOMES: Mapping[type[Refused], str] = {
    Limited: "limited",
    NodeUnavailable: "unavailable",
    OutcomeNotRecorded: "not_recorded",
}


@dataclass(slots=True)
class _Passage:
    """One request on its way, with what the audit will say of it."""

    caller: Caller
    call: Call
    question: DecisionInput
    started: float
    effect: str = "deny"
    reasons: tuple[Reason, ...] = ()
    revision: str = ""
    begun: bool = False
    unrecordable: bool = False  # its intent was refused: it was not made and has no outcome


class Gate:
    """Takes every request through the decision protocol.

    Args:
        node: this node's name, for the policy and the audit.
    """

    def __init__(
        self,
        *,
        node: str,
        policy: PolicyEngine,
        counters: Counters,
        audit: AuditStore,
        catalog: Catalog,
    ) -> None:
        self._node = node
        self._policy = policy
        self._counters = counters
        self._audit = audit
        self.catalog = catalog
        self.inflight = 0
        self._deadlines = Deadlines()

    @property
    def longest_s(self) -> float:
        """The longest deadline of a call in seconds."""
        return max([_DEADLINE_S, *(tool.timeout_s for tool in self.catalog)])

    def end_work(self) -> None:
        """Cut off what still runs: each call is answered and recorded as one that was too late."""
        self._deadlines.end()

    async def perform(
        self,
        caller: Caller,
        call: Call,
        work: Callable[[Obligations], Awaitable[_T]],
        *,
        outcome_of: Callable[[_T], str] = lambda _: "ok",
    ) -> Answer[_T]:
        """Run `work` if OPA lets the call pass, and return its result once the audit row is committed.

        Args:
            work: gets the obligations of the decision and does what was asked.
            outcome_of: the audit's word for a result.

        Whatever cancels it: what was charged and not admitted is given back, the outcome is recorded.

        Raises:
            Refused: denied; Limited: a rate limit is used up; NodeUnavailable: OPA does not answer.
            OutcomeNotRecorded: a change was tried, and the audit log went away meanwhile.
            TimeoutError: the work took longer than its deadline.
            InternalError: instead of whatever else was raised, which is in the log.
        """
        passage = self._enter(caller, call)
        self.inflight += 1
        telemetry.INFLIGHT.set(self.inflight)
        outcome = "error"
        try:
            decision, quota = await self._permit(passage)
            obligations = decision.combined
            try:
                if call.changes:
                    await self._record_intent(passage)
                passage.begun = True
                async with self._deadlines.within(_shorter(call.timeout_s, obligations.timeout_s)):
                    value = await work(obligations)
                outcome = outcome_of(value)
            except TimeoutError:
                outcome = "timeout"
                raise
            except asyncio.CancelledError:
                outcome = "cancelled"
                raise
            except Refused:
                raise
            except Exception as error:
                raise self.failed(caller, call.method, error, begun=passage.begun) from error
            finally:
                if not passage.unrecordable:
                    await self._record_outcome(passage, outcome)
            return Answer(value, quota)
        except asyncio.CancelledError:
            outcome = "cancelled"
            raise
        except Refused as refusal:
            outcome = _OUTCOMES.get(type(refusal), "denied")
            raise
        except (InternalError, TimeoutError):
            raise
        except Exception as error:
            raise self.failed(caller, call.method, error, begun=passage.begun) from error
        finally:
            self.inflight -= 1
            telemetry.INFLIGHT.set(self.inflight)
            self._observe(passage, outcome)

    async def perform_or_fail(
        self,
        caller: Caller,
        call: Call,
        work: Callable[[Obligations], Awaitable[_T]],
        *,
        source: str | None = None,
    ) -> Answer[_T]:
        """As `perform`, for work that may raise ToolError or InvalidArguments.

        They are recorded as what they are, and told once the audit row is committed.

        Args:
            source: the system that the work asks, whose words a ToolError may repeat; None: there is
                none.

        Raises:
            InvalidArguments: the work raised it.
            Failed: instead of a ToolError, and where the deadline cut the work off.
            Refused, Limited, NodeUnavailable, InternalError: as `perform`.
        """

        masked: Set[str] = frozenset()

        async def attempt(obligations: Obligations) -> _T | ToolError | InvalidArguments:
            nonlocal masked
            masked = obligations.redact
            try:
                return await work(obligations)
            except (ToolError, InvalidArguments) as error:
                return error

        try:
            answer = await self.perform(caller, call, attempt, outcome_of=_outcome_of)
        except TimeoutError:
            late = f"{call.method} {self._why_late()}"
            raise Failed(late, retryable=True) from None
        match answer.value:
            case InvalidArguments() as error:
                raise error
            case ToolError() as error:
                message = mask_text(redact_text(str(error)), masked)
                if source is not None:
                    message = marked(source, message)
                raise Failed(message, source=source, retryable=error.retryable) from error
            case value:
                return Answer(value, answer.quota)

    async def call_tool(
        self,
        caller: Caller,
        wire_name: str,
        raw_arguments: Mapping[str, Any],
        *,
        progress: Progress | None = None,
    ) -> Answer[ToolAnswer]:
        """Call the tool that clients know as `wire_name`.

        A tool that does not exist and one that the caller may not see are refused alike.

        Args:
            progress: hears how far a long call is.

        Raises:
            InvalidArguments: the arguments do not fit a tool the caller may see, or the tool, which the
                policy let run, refused them.
            Refused, Limited, NodeUnavailable: as `perform`; InternalError: also that, where nothing can
                have been changed.
        """
        tool = self.catalog.find(wire_name)
        if tool is None:
            return await self._refuse_unknown(caller, wire_name)
        try:
            arguments = tool.parse(raw_arguments)
        except InvalidArguments:
            await self._require_visible(caller, tool)
            await self._record_invalid(caller, tool)
            raise
        call = Call(
            method="tools/call",
            resource=Resource("tool", tool.name, tool.properties(arguments)),
            arguments=arguments.model_dump(mode="json"),
            tool=tool.name,
            changes=tool.changes(arguments),
            timeout_s=tool.timeout_s,
        )

        async def work(obligations: Obligations) -> ToolAnswer | InvalidArguments:
            masked = tool.masked_names(obligations.redact)
            obligations = dataclasses.replace(obligations, redact=masked)
            context = tool_context(caller, obligations, progress)
            try:
                result = await tool.run(arguments, context)
                shown = await presented(
                    tool,
                    arguments,
                    result,
                    oblige=lambda document: mask_fields(document, masked),
                )
            except InvalidArguments as error:
                # Told once the audit row is committed: the server's own words, unlike a ToolError's.
                return error
            except ToolError as error:
                return ToolAnswer(
                    # It may hold what a backend said: words from outside, as a result's are.
                    marked(tool.source, mask_text(redact_text(str(error)), masked)),
                    None,
                    tool.source,
                    is_error=True,
                    retryable=error.retryable,
                )
            return ToolAnswer(shown.text, shown.structured, tool.source)

        try:
            answer = await self.perform(caller, call, work, outcome_of=_outcome_of)
        except TimeoutError:
            early = _ended_early(tool, self._why_late(), changes=call.changes)
        except InternalError as internal:
            if not (call.changes and internal.begun):
                raise
            why = f"failed inside the server (request {internal.request_id})"
            early = _ended_early(tool, why, changes=True)
        else:
            match answer.value:
                case InvalidArguments() as error:
                    raise error
                case value:
                    return Answer(value, answer.quota)
        return Answer(
            ToolAnswer(str(early), None, tool.source, is_error=True, retryable=early.retryable), ()
        )

    async def visible(self, caller: Caller, method: str) -> Visible:
        """Return what could be allowed to the caller with some arguments.

        Raises:
            NodeUnavailable: OPA does not answer; Refused: a rule failed.
        """
        call = Call(method=method, resource=Resource("server", self._node))
        try:
            return await self._policy.visible(self._question(caller, call))
        except PolicyUnavailable as error:
            raise self._without_an_answer(error) from error

    async def entitlements(self, caller: Caller, call: Call) -> Entitlements:
        """Return where the caller stands: what it may do, and what is left of its limits.

        The counters are read and not charged; Rego says what the counts mean.

        Raises:
            NodeUnavailable: OPA does not answer.
            Refused: the counters cannot be read, or a rule failed.
        """
        question = self._question(caller, call)
        try:
            entitlements = await self._policy.entitlements(question, ())
            if not entitlements.charges:
                return entitlements
            counts = await self._counters.peek(entitlements.charges)
            return await self._policy.entitlements(question, counts)
        except PolicyUnavailable as error:
            raise self._without_an_answer(error) from error
        except CountersUnavailable as error:
            telemetry.log.warning("counters_unavailable", error=str(error))
            raise Refused(
                [_own_reason("counters_unavailable", _NO_COUNTERS)], retryable=True
            ) from error

    def _why_late(self) -> str:
        if self._deadlines.over:
            return "did not end before this node had to stop"
        return "did not end within its deadline"

    async def _refuse_unknown(self, caller: Caller, wire_name: str) -> Answer[ToolAnswer]:
        # What cannot be a tool's name on the wire may be its name in the policy's catalogue, by which
        # the policy would allow it.
        named = wire_name if _WIRE_NAME.fullmatch(wire_name) else ""
        call = Call("tools/call", Resource("tool", named), tool=wire_name[:128])

        async def work(_: Obligations) -> ToolAnswer:
            # Only a policy that allows what is not in its catalogue leads here. It is the same on every
            # node: nothing that a client sends may make one call itself unavailable.
            telemetry.log.error("policy_allowed_absent_tool", tool=wire_name[:128])
            raise Refused([_ABSENT])

        return await self.perform(caller, call, work)

    async def _require_visible(self, caller: Caller, tool: Tool[Any, Any]) -> None:
        """Refuse like an unknown tool unless the caller may see `tool`."""
        if tool.name not in (await self.visible(caller, "tools/list")).tools:
            await self._refuse_unknown(caller, tool.wire_name)

    async def _record_invalid(self, caller: Caller, tool: Tool[Any, Any]) -> None:
        """Record a call that was not made because its arguments do not fit; they are not kept."""
        call = Call("tools/call", Resource("tool", tool.name), tool=tool.name)
        passage = self._enter(caller, call)
        passage.revision = self._policy.revision
        await self._record_refusal(passage, "invalid_arguments")
        self._observe(passage, "invalid_arguments")

    def _enter(self, caller: Caller, call: Call) -> _Passage:
        started = time.perf_counter()
        return _Passage(
            caller=caller, call=call, question=self._question(caller, call), started=started
        )

    def _question(self, caller: Caller, call: Call) -> DecisionInput:
        subject = caller.subject
        return DecisionInput(
            subject=SubjectInput(
                id=subject.id,
                tenant=subject.tenant,
                roles=subject.roles,
                groups=subject.groups,
                scopes=subject.scopes,
                token_id=subject.token_id,
            ),
            action=Action(call.method, *without_secrets(call.arguments)),
            resource=call.resource,
            context=Context(
                ip=caller.ip,
                time=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
                node=self._node,
                request_id=caller.request_id,
                transport=caller.transport,
                counters="up" if self._counters.up else "down",
                audit="up" if self._audit.healthy else "down",
            ),
        )

    async def _permit(self, passage: _Passage) -> tuple[Decision, tuple[Quota, ...]]:
        """Decide, charge, admit. Every refusal on the way is recorded before it is raised."""
        try:
            decision = await self._decide(passage)
            if not decision.charges:
                return decision, ()
            entry = uuid.uuid4().hex
            try:
                counts = await self._counters.charge(entry, decision.charges)
            except CountersUnavailable as error:
                telemetry.log.warning("counters_unavailable", error=str(error))
                return await self._decide_uncounted(passage), ()
            except asyncio.CancelledError:
                # Whether Redis was charged is not known. To give back takes this call's own entries away
                # and is nothing where there are none. Only a charge that reaches Redis after it, on
                # another connection, stays until its window ends.
                await self._give_back(entry, decision.charges)
                raise
            admitted = False
            try:
                admission = await self._policy.admit(passage.question, counts)
                admitted = admission.effect == "allow"
            finally:
                if not admitted:
                    await self._give_back(entry, decision.charges)
            passage.effect, passage.reasons = admission.effect, tuple(admission.reasons)
            passage.revision = admission.revision
            if admission.effect == "limited":
                raise Limited(admission)
            if admission.effect != "allow":
                raise Refused(admission.reasons, revision=admission.revision)
            return decision, tuple(admission.quota)
        except PolicyUnavailable as error:
            refusal = self._without_an_answer(error)
            passage.effect, passage.reasons = "deny", refusal.reasons
            await self._record_refusal(passage, _OUTCOMES.get(type(refusal), "denied"))
            raise refusal from error
        except Limited:
            await self._record_refusal(passage, "limited")
            raise
        except Refused:
            await self._record_refusal(passage, "denied")
            raise
        except asyncio.CancelledError:
            # Not let through, whatever was decided of it so far.
            passage.effect = "deny"
            await self._record_refusal(passage, "cancelled")
            raise

    async def _decide(self, passage: _Passage) -> Decision:
        decision = await self._policy.decide(passage.question)
        passage.effect, passage.reasons = decision.effect, tuple(decision.reasons)
        passage.revision = decision.revision
        if decision.effect != "allow":
            context = passage.question.context
            raise Refused(
                decision.reasons,
                retryable="down" in (context.counters, context.audit),
                revision=decision.revision,
            )
        return decision

    async def _decide_uncounted(self, passage: _Passage) -> Decision:
        """Ask again, telling that the counters are down; a permission must then charge nothing."""
        question = passage.question
        passage.question = dataclasses.replace(
            question, context=dataclasses.replace(question.context, counters="down")
        )
        decision = await self._decide(passage)
        if decision.charges:
            passage.effect = "deny"
            raise Refused([_own_reason("counters_unavailable", _NO_COUNTERS)], retryable=True)
        return decision

    async def _give_back(self, entry: str, charges: Sequence[Charge]) -> None:
        try:
            await _to_its_end(self._counters.give_back(entry, charges))
        except CountersUnavailable as error:
            telemetry.log.warning("charge_not_given_back", error=str(error))

    async def _record_intent(self, passage: _Passage) -> None:
        try:
            await self._audit.commit(self._record(passage, Phase.INTENT))
        except AuditUnavailable as error:
            if _allowed_unrecorded(passage):
                self._go_on_unrecorded(passage, error)
                return
            passage.unrecordable = True
            telemetry.log.error("audit_unavailable", error=str(error))
            raise Refused(
                [_own_reason("audit_unavailable", _NOT_RECORDED)], retryable=True
            ) from error

    async def _record_outcome(self, passage: _Passage, outcome: str) -> None:
        try:
            await _to_its_end(self._audit.commit(self._record(passage, Phase.OUTCOME, outcome)))
        except AuditUnavailable as error:
            if _allowed_unrecorded(passage):
                self._go_on_unrecorded(passage, error)
                return
            telemetry.log.error("audit_unavailable", error=str(error))
            if outcome == "cancelled":
                return  # nobody waits to be told, and the cancellation has to go on
            if passage.call.changes:
                raise OutcomeNotRecorded(
                    [
                        Reason(
                            code="outcome_not_recorded",
                            message=_CHANGE_NOT_RECORDED,
                            rule="",
                            solution="Read what it is now; the audit log holds the intent.",
                        )
                    ]
                ) from error
            raise Refused(
                [_own_reason("audit_unavailable", _NOT_RECORDED)], retryable=True
            ) from error

    def _go_on_unrecorded(self, passage: _Passage, error: AuditUnavailable) -> None:
        telemetry.UNRECORDED.inc()
        telemetry.log.warning(
            "request_not_recorded", request_id=passage.caller.request_id, error=str(error)
        )

    async def _record_refusal(self, passage: _Passage, outcome: str) -> None:
        if not self._audit.healthy:
            return
        try:
            await self._audit.commit(self._record(passage, Phase.OUTCOME, outcome))
        except AuditUnavailable as error:
            # The refusal stands; the store says by itself that it lost rows.
            telemetry.log.warning("refusal_not_recorded", error=str(error))

    def _record(self, passage: _Passage, phase: Phase, outcome: str | None = None) -> AuditRecord:
        caller, call = passage.caller, passage.call
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
            arguments=redact_arguments(passage.call.arguments),
            client_ip=ip_address(caller.ip),
            user_agent=caller.user_agent,
            effect=passage.effect,
            reasons=[AuditReason(**reason.model_dump()) for reason in passage.reasons],
            policy_revision=passage.revision,
            duration_ms=(time.perf_counter() - passage.started) * 1000,
            outcome=outcome,
            judged=_judged(passage.question),
        )

    def failed(
        self, caller: Caller, method: str, error: Exception, *, begun: bool = False
    ) -> InternalError:
        """Log an error that was not foreseen, and return what the caller may be told of it.

        What it says may be anything, secrets of a backend too.

        Args:
            begun: whether work had begun that may have changed something.
        """
        telemetry.log.error(
            "internal_error", request_id=caller.request_id, method=method, exc_info=error
        )
        return InternalError(caller.request_id, begun=begun)

    def _without_an_answer(self, error: PolicyUnavailable) -> Refused:
        """Return the refusal; other nodes are asked only where they could answer otherwise."""
        if isinstance(error, PolicyUndecided):
            telemetry.log.error("policy_undecided", error=str(error))
            return Refused([_UNDECIDED])
        telemetry.log.error("policy_unavailable", error=str(error))
        return NodeUnavailable(
            [_own_reason("policy_unavailable", _NODE_CANNOT_DECIDE)], retryable=True
        )

    def _observe(self, passage: _Passage, outcome: str) -> None:
        duration_s = time.perf_counter() - passage.started
        # A client writes what it likes as a method: each would be a series of its own.
        method = passage.call.method if passage.call.method in SPEC_CLIENT_METHODS else "other"
        telemetry.REQUESTS.labels(method, outcome).inc()
        telemetry.REQUEST_SECONDS.labels(method).observe(duration_s)
        telemetry.log.info(
            "request",
            request_id=passage.caller.request_id,
            method=passage.call.method,
            tool=passage.call.tool,
            user=passage.caller.subject.id,
            tenant=passage.caller.subject.tenant,
            outcome=outcome,
            effect=passage.effect,
            codes=[reason.code for reason in passage.reasons],
            duration_ms=round(duration_s * 1000, 2),
        )


def tool_context(
    caller: Caller, obligations: Obligations, progress: Progress | None = None
) -> ToolContext:
    """Return what a tool or a document may know of a caller whose call was allowed."""
    subject = caller.subject
    context = ToolContext(
        user=subject.id,
        tenant=subject.tenant,
        groups=(*subject.roles, *subject.groups),
        request_id=caller.request_id,
        max_items=obligations.max_items,
        masked=obligations.redact,
    )
    if progress is None:
        return context

    async def report(done: float, total: float | None, message: str) -> None:
        # What a backend says may stand in it.
        await progress(done, total, redact_text(message))

    return dataclasses.replace(context, progress=report)


async def _to_its_end(work: Coroutine[Any, Any, None]) -> None:
    """Await what has to be done although the call is cancelled; it must have a deadline of its own.

    For a client that went away the SDK cancels every wait, not one: a `finally` is no shelter.
    """
    task = asyncio.current_task()
    with CancelScope(shield=True):
        if task is not None and task.cancelling():
            # In a task that was cancelled, a deadline is no TimeoutError before Python 3.11.4, so
            # this needs one of its own.
            await asyncio.shield(work)
        else:
            await work


def _judged(question: DecisionInput) -> RedactedArguments:
    """Return what else than the columns of its row the policy is told."""
    subject, resource, context = question.subject, question.resource, question.context
    who = _judged_subject(subject.roles, subject.scopes, subject.token_id, subject.groups)
    what = redact_arguments(
        {
            "resource": {
                "type": resource.type,
                "id": resource.id,
                "properties": resource.properties,
            },
            "withheld": question.action.withheld,
        },
        limit=_JUDGED_LIMIT,
    )
    return RedactedArguments(
        f'{{"time":"{context.time}","counters":"{context.counters}","audit":"{context.audit}",'
        f'"subject":{who.json},{what.json[1:]}'
    )


@lru_cache(maxsize=1024)
def _judged_subject(
    roles: tuple[str, ...], scopes: tuple[str, ...], token_id: str, groups: tuple[str, ...]
) -> RedactedArguments:
    # Of a long list the rest is cut, and of some companies groups are one.
    return redact_arguments(
        {"roles": roles, "scopes": scopes, "jti": token_id, "groups": groups}, limit=_JUDGED_LIMIT
    )


def _allowed_unrecorded(passage: _Passage) -> bool:
    """Tell whether the policy let the call pass although it was told that nothing can be recorded."""
    return passage.effect == "allow" and passage.question.context.audit == "down"


def _own_reason(code: str, message: str) -> Reason:
    return Reason(code=code, message=message, rule="", solution="Try again in a few seconds.")


def _ended_early(tool: Tool[Any, Any], why: str, *, changes: bool) -> ToolError:
    """Return what a caller is told of a call that did not come to its end, wherever it was then."""
    if not changes:
        return ToolError(f"{tool.wire_name} {why}", retryable=True)
    return OutcomeUnknown(tool.wire_name, why, verify_hint=tool.verify_hint)


def _outcome_of(value: object) -> str:
    if isinstance(value, InvalidArguments):
        return "invalid_arguments"
    if isinstance(value, ToolAnswer):
        return "tool_error" if value.is_error else "ok"
    return "tool_error" if isinstance(value, ToolError) else "ok"


def _shorter(timeout_s: float, obliged_s: float | None) -> float:
    return timeout_s if obliged_s is None else min(timeout_s, obliged_s)
