"""The steps of every request, in their order.

    receive    the subject, the call and the state of the stores become the policy's input
    authorize  Redis counts the call in each window of its rate limits; OPA decides, given the counts
    intent     the audit row of a change is committed before the change is made
    run        the work, within its deadline
    outcome    the audit row is committed before the caller gets the answer

MCP, REST and stdio all call `Gate.perform`. It compares no role, no limit and no address: OPA does. It
guarantees the order of the steps, and that a request without a well-formed permission is refused.
"""

from __future__ import annotations

import asyncio
import dataclasses
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator, Set
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

from mcp_server.audit import AuditStore, Outcome
from mcp_server.gate.charging import MAX_QUERIES, query_with_charges
from mcp_server.gate.errors import (
    Failed,
    InternalError,
    Limited,
    Refused,
    ScopeMissing,
    counters_unavailable,
    policy_unavailable,
)
from mcp_server.gate.predictions import Predictions
from mcp_server.gate.recorder import Recorder
from mcp_server.gate.request import (
    DEFAULT_TIMEOUT_S,
    Answer,
    Call,
    Caller,
    InFlight,
    decision_input,
)
from mcp_server.infrastructure import telemetry
from mcp_server.infrastructure.telemetry import tracing
from mcp_server.policy import (
    Authorization,
    Charge,
    Counters,
    CountersUnavailable,
    Entitlements,
    Obligations,
    PolicyEngine,
    PolicyUnavailable,
    PolicyUndecided,
    Resource,
    Visible,
)
from mcp_server.redaction import mask_text, redact_text
from mcp_server.tools.catalog import Catalog, InvalidArguments, ToolError
from mcp_server.tools.deadline import Deadlines
from mcp_server.tools.presentation import marked

__all__ = ["Gate"]

_T = TypeVar("_T")


class Gate:
    """Takes every request through the steps.

    Args:
        node: this node's name, for the policy and the audit.
        result_digests: whether audit rows have the digest and the size of results.
    """

    def __init__(
        self,
        *,
        node: str,
        policy: PolicyEngine,
        counters: Counters,
        audit: AuditStore,
        catalog: Catalog,
        result_digests: bool = True,
    ) -> None:
        self._node = node
        self._policy = policy
        self._counters = counters
        self._audit = audit
        names = frozenset(tool.name for tool in catalog)
        self._recorder = Recorder(node, audit, names, digests=result_digests)
        self._deadlines = Deadlines()
        self._predictions = Predictions()
        self.catalog = catalog
        self.inflight = 0

    # The pipeline -----------------------------------------------------------------------------------

    async def perform(
        self,
        caller: Caller,
        call: Call,
        work: Callable[[Obligations], Awaitable[_T]],
        *,
        outcome_of: Callable[[_T], Outcome] = lambda _: "ok",
        text_of: Callable[[_T], str | None] = lambda _: None,
    ) -> Answer[_T]:
        """Run `work` if the policy permits the call; return its result once the audit row is committed.

        When the call is cancelled, a charge that was not admitted is given back and the outcome is
        recorded.

        Args:
            work: gets the obligations of the decision and does what the call asks for.
            outcome_of: returns the word for the audit row that describes a result.
            text_of: returns the text of a result that the caller gets, for its digest in the audit row.

        Raises:
            Refused: the policy denied the call. Limited: a rate limit is exhausted.
            NodeUnavailable: OPA does not answer.
            OutcomeNotRecorded: a change was tried, and the audit log became unavailable meanwhile.
            TimeoutError: the work took longer than its deadline.
            InternalError: in place of any other error, which is in the log.
        """
        request = self._receive(caller, call)
        with self._observed(request), self._classified(request):
            try:
                with self._classified(request):
                    await self._authorize(request)
                    await self._recorder.record_intent(request)
                    value = await self._run(request, work)
                    request.outcome = outcome_of(value)
                    request.result = text_of(value)
            finally:
                await self._recorder.record_outcome(request)
        return Answer(value, request.quota)

    def _receive(self, caller: Caller, call: Call) -> InFlight:
        started = time.perf_counter()
        policy_input = decision_input(
            caller,
            call,
            node=self._node,
            counters_up=self._counters.up,
            audit_up=self._audit.healthy,
        )
        return InFlight(caller=caller, call=call, policy_input=policy_input, started=started)

    async def _authorize(self, request: InFlight) -> None:
        """Count the call in the windows of its rate limits, and get the permission.

        The windows that the policy is likely to name are charged before it is asked, so that most calls
        need one query. The prediction is a hint and gives no right: the policy works out the charges
        itself, and a charge that it does not confirm is given back.
        """
        charges = self._predictions.of(request.policy_input, self._policy.revision)
        for _ in range(MAX_QUERIES):
            try:
                answer = await self._ask(request, charges)
            except CountersUnavailable as error:
                telemetry.log.warning("counters_unavailable", error=str(error))
                answer = await self._ask_uncounted(request)
            if answer.effect != "count":
                break
            charges = tuple(answer.charges)
        else:
            raise PolicyUnavailable("the policy names other charges each time it is asked")
        request.decided(answer)
        self._predictions.learn(request.policy_input, answer)
        if answer.effect == "limited":
            raise Limited(answer)
        if answer.missing_scope:
            raise ScopeMissing(answer)
        if answer.effect != "allow":
            context = request.policy_input.context
            raise Refused(answer.reasons, retryable="down" in (context.counters, context.audit))
        request.obligations, request.quota = answer.combined, tuple(answer.quota)
        request.permitted = True

    async def _ask(self, request: InFlight, charges: tuple[Charge, ...]) -> Authorization:
        return await query_with_charges(
            self._counters,
            uuid.uuid4().hex,
            charges,
            partial(self._policy.authorize, request.policy_input),
        )

    async def _ask_uncounted(self, request: InFlight) -> Authorization:
        """Ask with the counters reported as down; a permission must then charge nothing."""
        context = dataclasses.replace(request.policy_input.context, counters="down")
        request.policy_input = dataclasses.replace(request.policy_input, context=context)
        answer = await self._ask(request, ())
        if answer.effect == "count":
            raise counters_unavailable()
        return answer

    async def _run(self, request: InFlight, work: Callable[[Obligations], Awaitable[_T]]) -> _T:
        obligations = request.obligations
        timeout_s = _shorter(request.call.timeout_s, obligations.timeout_s)
        request.begun = True
        with tracing.span("run"):
            async with self._deadlines.within(timeout_s):
                return await work(obligations)

    @contextmanager
    def _classified(self, request: InFlight) -> Iterator[None]:
        """Name the outcome of a step that fails, and keep unforeseen errors from the caller.

        It surrounds the steps, so that the audit row has the outcome, and the audit row as well, because
        that may fail too.
        """
        try:
            yield
        except asyncio.CancelledError:
            request.outcome = "cancelled"
            raise
        except TimeoutError:
            request.outcome = "timeout"
            raise
        except PolicyUnavailable as error:
            refusal = _refusal_for(error)
            request.refuse(refusal)
            raise refusal from error
        except Refused as refusal:
            request.refuse(refusal)
            raise
        except InternalError:
            raise
        except Exception as error:
            request.outcome = "error"
            raise self.internal_error(
                request.caller, request.call.method, error, begun=request.begun
            ) from error

    @contextmanager
    def _observed(self, request: InFlight) -> Iterator[None]:
        """Count the request as in progress, trace it, and report it when it has ended."""
        self.inflight += 1
        telemetry.INFLIGHT.set(self.inflight)
        with tracing.request_span():
            try:
                yield
            finally:
                self.inflight -= 1
                telemetry.INFLIGHT.set(self.inflight)
                self._recorder.observe(request)

    # Around the pipeline ----------------------------------------------------------------------------

    async def perform_or_fail(
        self,
        caller: Caller,
        call: Call,
        work: Callable[[Obligations], Awaitable[_T]],
        *,
        source: str | None = None,
    ) -> Answer[_T]:
        """Do as `perform`, with work that may raise ToolError or InvalidArguments.

        These errors are recorded under their own names, and raised once the audit row is committed.

        Args:
            source: the system that the work queries, whose text a ToolError may repeat.

        Raises:
            InvalidArguments: the work raised it.
            Failed: in place of a ToolError, and when the deadline ended the work.
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
            raise Failed(f"{call.method} {self.why_late}", retryable=True) from None
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

    async def refuse_invalid(self, caller: Caller, call: Call) -> None:
        """Record a call that is not made because its arguments do not fit the tool."""
        request = self._receive(caller, call)
        request.revision = self._policy.revision
        request.outcome = "invalid_arguments"
        await self._recorder.record_outcome(request)
        self._recorder.observe(request)

    async def visible(self, caller: Caller, method: str) -> Visible:
        """Return the tools, resources and prompts that the caller could use with some arguments.

        Raises:
            NodeUnavailable: OPA does not answer. Refused: a rule failed.
        """
        request = self._receive(caller, Call(method, Resource("server", self._node)))
        try:
            return await self._policy.visible(request.policy_input)
        except PolicyUnavailable as error:
            raise _refusal_for(error) from error

    async def entitlements(self, caller: Caller, call: Call) -> Entitlements:
        """Return what the caller may do, and what is left of its rate limits.

        The counters are read and not charged; the policy compares the counts with the limits.

        Raises:
            NodeUnavailable: OPA does not answer.
            Refused: the counters cannot be read, or a rule failed.
        """
        policy_input = self._receive(caller, call).policy_input
        try:
            entitlements = await self._policy.entitlements(policy_input, ())
            if not entitlements.charges:
                return entitlements
            counts = await self._counters.peek(entitlements.charges)
            return await self._policy.entitlements(policy_input, counts)
        except PolicyUnavailable as error:
            raise _refusal_for(error) from error
        except CountersUnavailable as error:
            telemetry.log.warning("counters_unavailable", error=str(error))
            raise counters_unavailable() from error

    def internal_error(
        self, caller: Caller, method: str, error: Exception, *, begun: bool = False
    ) -> InternalError:
        """Log an unforeseen error and return the one that the caller gets.

        The message of the original may hold anything, also secrets of a backend.

        Args:
            begun: whether work had begun that may have changed something.
        """
        telemetry.log.error(
            "internal_error", request_id=caller.request_id, method=method, exc_info=error
        )
        return InternalError(caller.request_id, begun=begun)

    # Stopping ---------------------------------------------------------------------------------------

    @property
    def longest_s(self) -> float:
        """The longest deadline of a call in seconds."""
        return max([DEFAULT_TIMEOUT_S, *(tool.timeout_s for tool in self.catalog)])

    @property
    def why_late(self) -> str:
        """The reason why a call was ended by its deadline, as the end of a sentence."""
        if self._deadlines.over:
            return "did not end before this node had to stop"
        return "did not end within its deadline"

    def end_work(self) -> None:
        """Cut off the work that still runs: each call is answered and recorded as too late."""
        self._deadlines.end()


def _refusal_for(error: PolicyUnavailable) -> Refused:
    """Log why the policy has no answer, and return the refusal."""
    event = "policy_undecided" if isinstance(error, PolicyUndecided) else "policy_unavailable"
    telemetry.log.error(event, error=str(error))
    return policy_unavailable(error)


def _outcome_of(value: object) -> Outcome:
    if isinstance(value, InvalidArguments):
        return "invalid_arguments"
    return "tool_error" if isinstance(value, ToolError) else "ok"


def _shorter(timeout_s: float, obliged_s: float | None) -> float:
    return timeout_s if obliged_s is None else min(timeout_s, obliged_s)
