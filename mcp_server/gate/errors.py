"""The errors of the gate, and the refusals that the server itself makes.

Every error here has a message for the client. `Refused.outcome` is the word for the audit row and the
metrics.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from mcp_server.audit import Outcome
from mcp_server.policy import Authorization, PolicyUnavailable, PolicyUndecided, Reason

__all__ = [
    "Failed",
    "InternalError",
    "Limited",
    "NodeUnavailable",
    "OutcomeNotRecorded",
    "Refused",
    "ScopeMissing",
    "audit_unavailable",
    "counters_unavailable",
    "not_available",
    "outcome_not_recorded",
    "policy_unavailable",
]


class Refused(Exception):
    """The request is refused: the policy denied it, or a part of the node is down. Nothing was changed.

    Attributes:
        reasons: for the client: what happened and what helps.
        retryable: whether the same call may be allowed a little later without any change.
        outcome: the word for the audit row and the metrics.
    """

    outcome: ClassVar[Outcome] = "denied"

    def __init__(self, reasons: Sequence[Reason], *, retryable: bool = False) -> None:
        super().__init__("; ".join(reason.message for reason in reasons) or "refused")
        self.reasons = tuple(reasons)
        self.retryable = retryable


class Limited(Refused):
    """A rate limit is exhausted. Nothing was done and nothing was charged.

    Attributes:
        retry_after_ms: milliseconds until the call fits the limit.
        quota: the state of every limit that applies.
    """

    outcome = "limited"

    def __init__(self, answer: Authorization) -> None:
        super().__init__(answer.reasons, retryable=True)
        self.retry_after_ms = answer.retry_after_ms
        self.quota = tuple(answer.quota)


class ScopeMissing(Refused):
    """The policy would allow the request with one more OAuth scope. Nothing was done.

    Attributes:
        scope: the scope to ask the authorization server for.
    """

    def __init__(self, answer: Authorization) -> None:
        super().__init__(answer.reasons)
        self.scope = answer.missing_scope


class NodeUnavailable(Refused):
    """OPA gives this node no usable answer; another node may have one. Nothing was done."""

    outcome = "unavailable"


class OutcomeNotRecorded(Refused):
    """A change was tried and its outcome could not be recorded: unlike other refusals, it may be made.

    The audit log holds the intent. It is not retryable: whoever repeats the change may make it twice.
    """

    outcome = "not_recorded"


class Failed(Exception):
    """An allowed request failed. The message is for the caller and holds no secret.

    Attributes:
        source: the system whose text the message may repeat, marked as data of that system; None: the
            message is the server's own.
        retryable: whether the same request may succeed a little later.
    """

    def __init__(self, message: str, *, source: str | None = None, retryable: bool = False) -> None:
        super().__init__(message)
        self.source = source
        self.retryable = retryable


class InternalError(Exception):
    """The server itself failed. The log holds the cause under the request's id; the caller gets the id.

    Attributes:
        begun: whether the work had begun, so that a change may have been made.
    """

    def __init__(self, request_id: str, *, begun: bool = False) -> None:
        super().__init__(
            f"internal error; an administrator finds the cause in the log of request {request_id}"
        )
        self.request_id = request_id
        self.begun = begun


def not_available() -> Refused:
    """Return the refusal of a tool that does not exist, in the words of the policy."""
    return Refused(
        [
            _reason(
                "not_available",
                "there is no such tool, resource or prompt, or it is not available to you",
                "list what is available to you; ask an administrator for a role if something is missing",
            )
        ]
    )


def policy_unavailable(error: PolicyUnavailable) -> Refused:
    """Return the refusal for a policy without an answer.

    `NodeUnavailable` makes the load balancer ask another node, so it is kept for faults that another
    node may not have. A rule that fails on an input fails on every node.
    """
    if isinstance(error, PolicyUndecided):
        return Refused(
            [
                _reason(
                    "undecided",
                    "the policy could not decide",
                    "ask an administrator to look at the policy's rules: one failed on this call",
                )
            ]
        )
    message = "this node cannot decide at the moment; the call was not made, try again"
    return NodeUnavailable([_reason("policy_unavailable", message)], retryable=True)


def counters_unavailable() -> Refused:
    """Return the refusal of a call that a rate limit applies to while Redis is down."""
    message = "rate limits cannot be counted at the moment; the call was not made, try again"
    return Refused([_reason("counters_unavailable", message)], retryable=True)


def audit_unavailable() -> Refused:
    """Return the refusal of a call that cannot be recorded."""
    message = "the call cannot be recorded at the moment, so it gets no answer; try again"
    return Refused([_reason("audit_unavailable", message)], retryable=True)


def outcome_not_recorded() -> OutcomeNotRecorded:
    """Return the refusal of a change that was tried and whose outcome cannot be recorded."""
    message = (
        "the change may have been made, and its outcome cannot be recorded at the moment; check the "
        "result before you try again"
    )
    solution = "Read the current state of the object; the audit log has the intent of the change."
    return OutcomeNotRecorded([_reason("outcome_not_recorded", message, solution)])


def _reason(code: str, message: str, solution: str = "Try again in a few seconds.") -> Reason:
    return Reason(code=code, message=message, rule="", solution=solution)
