"""The decision: the protocol with OPA, its client, and the counters in Redis."""

from mcp_server.policy.counters import Counters, CountersUnavailable
from mcp_server.policy.opa import PolicyEngine, PolicyUnavailable, PolicyUndecided
from mcp_server.policy.protocol import (
    Action,
    Admission,
    Charge,
    Context,
    Count,
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

__all__ = [
    "Action",
    "Admission",
    "Charge",
    "Context",
    "Count",
    "Counters",
    "CountersUnavailable",
    "Decision",
    "DecisionInput",
    "Entitlements",
    "Obligations",
    "PolicyEngine",
    "PolicyUnavailable",
    "PolicyUndecided",
    "Quota",
    "Reason",
    "Resource",
    "SubjectInput",
    "Visible",
]
