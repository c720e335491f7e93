"""The decision: the protocol with OPA, its client, and the counters in Redis."""

from mcp_server.policy.counters import Counters, CountersUnavailable
from mcp_server.policy.opa import PolicyEngine, PolicyUnavailable, PolicyUndecided
from mcp_server.policy.protocol import (
    Action,
    Authorization,
    Canary,
    Charge,
    ClientInfo,
    Context,
    Count,
    DecisionInput,
    Entitlements,
    Obligations,
    Quota,
    Reason,
    Resource,
    SignInInput,
    SubjectInput,
    Visible,
)

__all__ = [
    "Action",
    "Authorization",
    "Canary",
    "Charge",
    "ClientInfo",
    "Context",
    "Count",
    "Counters",
    "CountersUnavailable",
    "DecisionInput",
    "Entitlements",
    "Obligations",
    "PolicyEngine",
    "PolicyUnavailable",
    "PolicyUndecided",
    "Quota",
    "Reason",
    "Resource",
    "SignInInput",
    "SubjectInput",
    "Visible",
]
