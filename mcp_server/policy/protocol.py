"""The decision protocol, version 2, as types.

The input's field names follow the AuthZEN Authorization API 1.0 (subject, action, resource, context).
The answers are parsed strictly: an unknown effect or obligation, a missing or surplus field, or another
version makes an answer invalid, and an invalid answer is a denial.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = [
    "PROTOCOL_VERSION",
    "Action",
    "Authorization",
    "Canary",
    "Charge",
    "ClientInfo",
    "Context",
    "Count",
    "DecisionInput",
    "Entitlements",
    "MaxItems",
    "Obligations",
    "Quota",
    "Reason",
    "Redact",
    "Resource",
    "SignInInput",
    "StoreState",
    "SubjectInput",
    "Timeout",
    "ToolEntitlement",
    "Visible",
]

PROTOCOL_VERSION = 2

# A user and a tenant have up to 256 characters each (identity/claims.py). The policy encodes them, and a
# character of 4 bytes becomes %xx%xx%xx%xx: 2 * 256 * 12 = 6144. The rest is for the separators and the
# name of a tool or permission. Redis accepts keys of up to 512 MiB.
_MAX_KEY_LENGTH = 8192

StoreState = Literal["up", "down"]


@dataclass(frozen=True, slots=True)
class SubjectInput:
    """The caller as the policy sees it."""

    id: str
    tenant: str
    roles: tuple[str, ...]
    groups: tuple[str, ...]
    scopes: tuple[str, ...]
    token_id: str
    issuer: str
    client_id: str
    actor: str
    networks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Action:
    """An MCP method, with the arguments of a call.

    Attributes:
        arguments: each as it runs, or None if it is or holds a secret, or is too long to be searched.
        withheld: the places of the latter, as JSON Pointers (RFC 6901).
    """

    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    withheld: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Resource:
    """The target of the method; `properties` has its namespace, cluster or asset, where there is one."""

    type: Literal["tool", "resource", "prompt", "server"]
    id: str
    properties: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ClientInfo:
    """What a client program reports of itself (`clientInfo` of MCP); nobody verifies it.

    Empty strings: it reported nothing, as REST clients and later requests of the handshake era do.
    """

    name: str = ""
    version: str = ""


@dataclass(frozen=True, slots=True)
class Context:
    """The circumstances; `time` is RFC 3339 in UTC, `ip` the canonical text of the client's address."""

    ip: str
    time: str
    node: str
    request_id: str
    transport: Literal["mcp", "rest", "stdio", "cli"]
    counters: StoreState
    audit: StoreState


@dataclass(frozen=True, slots=True)
class DecisionInput:
    """The input of one query."""

    subject: SubjectInput
    action: Action
    resource: Resource
    context: Context
    client_info: ClientInfo = field(default_factory=ClientInfo)

    def to_json(self, counts: Sequence[Count] = ()) -> dict[str, Any]:
        """Return the JSON object that OPA gets as `input`, with the counts after charging, if any."""
        subject, action, resource, context = self.subject, self.action, self.resource, self.context
        policy_input: dict[str, Any] = {
            "version": PROTOCOL_VERSION,
            "subject": {
                "type": "user",
                "id": subject.id,
                "properties": {
                    "tenant": subject.tenant,
                    "roles": list(subject.roles),
                    "groups": list(subject.groups),
                    "scopes": list(subject.scopes),
                    "token_id": subject.token_id,
                    "issuer": subject.issuer,
                    "client_id": subject.client_id,
                    "actor": subject.actor,
                    "networks": list(subject.networks),
                },
            },
            "action": {
                "name": action.name,
                "properties": {
                    "arguments": dict(action.arguments),
                    "withheld": list(action.withheld),
                },
            },
            "resource": {
                "type": resource.type,
                "id": resource.id,
                "properties": dict(resource.properties),
            },
            "context": {
                **_context_json(context),
                "client_info": {
                    "name": self.client_info.name,
                    "version": self.client_info.version,
                },
            },
        }
        return _with_counts(policy_input, counts)


@dataclass(frozen=True, slots=True)
class SignInInput:
    """The input about an attempt to sign in.

    Attributes:
        method: `password` of a directory, or `token`: a request with a token or an API key.
        user: the claimed name of the user in one canonical text; empty: none is claimed.
    """

    method: Literal["password", "token"]
    user: str
    context: Context

    def to_json(self, counts: Sequence[Count] = ()) -> dict[str, Any]:
        """Return the JSON object that OPA gets as `input`, with the counts after charging, if any."""
        policy_input: dict[str, Any] = {
            "version": PROTOCOL_VERSION,
            "attempt": {"method": self.method, "user": self.user},
            "context": _context_json(self.context),
        }
        return _with_counts(policy_input, counts)


def _context_json(context: Context) -> dict[str, Any]:
    return {
        "ip": context.ip,
        "time": context.time,
        "node": context.node,
        "request_id": context.request_id,
        "transport": context.transport,
        "counters": context.counters,
        "audit": context.audit,
    }


def _with_counts(policy_input: dict[str, Any], counts: Sequence[Count]) -> dict[str, Any]:
    if counts:
        policy_input["counts"] = [
            {
                "charge": {
                    "id": each.charge.id,
                    "key": each.charge.key,
                    "limit": each.charge.limit,
                    "window_s": each.charge.window_s,
                    "cost": each.charge.cost,
                },
                "count": each.count,
                "reset_ms": each.reset_ms,
            }
            for each in counts
        ]
    return policy_input


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class _Versioned(_Answer):
    version: Literal[2]
    revision: str


class Reason(_Answer):
    """Why a request was refused, for a person: what happened, and what helps."""

    code: str
    message: str
    rule: str
    solution: str


class Charge(_Answer):
    """A rate limit that applies: `cost` is added to the window `key` of `window_s` seconds."""

    id: str
    key: Annotated[str, Field(min_length=1, max_length=_MAX_KEY_LENGTH)]
    limit: Annotated[int, Field(gt=0)]
    window_s: Annotated[int, Field(gt=0)]
    cost: Annotated[int, Field(gt=0, le=1000)]


class Timeout(_Answer):
    """The tool must end within this time."""

    type: Literal["timeout"]
    seconds: Annotated[float, Field(gt=0)]


class MaxItems(_Answer):
    """No list in the result holds more than this."""

    type: Literal["max_items"]
    value: Annotated[int, Field(gt=0)]


class Redact(_Answer):
    """These fields are masked at any depth of the result."""

    type: Literal["redact"]
    fields: tuple[str, ...] = Field(strict=False)


Obligation = Annotated[Timeout | MaxItems | Redact, Field(discriminator="type")]


@dataclass(frozen=True, slots=True)
class Obligations:
    """All obligations of one decision together, the strictest of each kind."""

    timeout_s: float | None = None
    max_items: int | None = None
    redact: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Count:
    """The entries in the window of a charge after adding its cost; the limit is not compared yet.

    Attributes:
        reset_ms: milliseconds until the oldest entry leaves the window.
    """

    charge: Charge
    count: int
    reset_ms: int


class Quota(_Answer):
    """What is left of one rate limit."""

    id: str
    limit: int
    remaining: int
    window_s: int
    reset_ms: int


class Authorization(_Versioned):
    """The answer of `authorize`.

    Attributes:
        effect: `count` asks for another query, with the counts of exactly these charges.
        charges: the windows of the call, in the order in which the policy expects their counts.
        missing_scope: of a denial: an OAuth scope with which the request would be allowed, or empty.
        retry_after_ms: of a limited call: milliseconds until it fits its limits.
        quota: what is left in each window that was counted.
    """

    effect: Literal["allow", "count", "limited", "deny", "approval_required"]
    reasons: list[Reason]
    missing_scope: str = ""
    charges: list[Charge]
    obligations: list[Obligation]
    retry_after_ms: Annotated[int, Field(ge=0)]
    quota: list[Quota]

    @property
    def combined(self) -> Obligations:
        """The obligations, the strictest of each kind."""
        timeouts = [o.seconds for o in self.obligations if isinstance(o, Timeout)]
        caps = [o.value for o in self.obligations if isinstance(o, MaxItems)]
        return Obligations(
            timeout_s=min(timeouts, default=None),
            max_items=min(caps, default=None),
            redact=frozenset(
                name for o in self.obligations if isinstance(o, Redact) for name in o.fields
            ),
        )


class Visible(_Versioned):
    """The answer of `visible`: what the policy could allow a subject with some arguments."""

    tools: frozenset[str] = Field(strict=False)
    resources: frozenset[str] = Field(strict=False)
    prompts: frozenset[str] = Field(strict=False)


class ToolEntitlement(_Answer):
    """The namespaces in which one tool may be used, and the rate limits of its calls.

    Attributes:
        namespaces: the namespaces that the policy names, by name or pattern (`team-a-*`); empty for a
            tool without a namespace.
        other_namespaces: whether all namespaces that the policy does not name are allowed.
        all_namespaces: whether one call may read all namespaces.
        limits: the ids of the rate limits.
    """

    id: str
    namespaces: list[str]
    other_namespaces: bool
    all_namespaces: bool
    limits: list[str]


class Entitlements(_Versioned):
    """The answer of `entitlements`: what a subject may do, and the rest of each rate limit."""

    roles: list[str]
    tools: list[ToolEntitlement]
    resources: frozenset[str] = Field(strict=False)
    prompts: frozenset[str] = Field(strict=False)
    charges: list[Charge]
    quota: list[Quota]


class Canary(_Versioned):
    """Whether the loaded policy decides two inputs with known answers correctly, and its scopes.

    Attributes:
        scopes: the OAuth scopes that the policy data define.
        initial_scope: the least of them with which tools can be listed; empty: there is none.
    """

    allow_ok: bool
    deny_ok: bool
    scopes: list[str]
    initial_scope: str
