"""The decision: what OPA is asked, what it may answer, and the counters it compares with."""

from mcp_server.policy.counters import Counters, CountersUnavailable
from mcp_server.policy.documents import (
    Action,
    Admission,
    Charge,
    Context,
    Count,
    Decision,
    DecisionInput,
    Obligations,
    Quota,
    Reason,
    Resource,
    Standing,
    Visible,
)
from mcp_server.policy.opa import PolicyEngine, PolicyUnavailable, PolicyUndecided

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
    "Obligations",
    "PolicyEngine",
    "PolicyUnavailable",
    "PolicyUndecided",
    "Quota",
    "Reason",
    "Resource",
    "Standing",
    "Visible",
]
