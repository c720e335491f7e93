"""Attempts to sign in: counted, limited by the policy, and recorded.

A failed attempt stays in the windows that the policy names for it; a successful one is given back. The
audit log has every successful sign-in with a password, and of failures the first of each address in a
minute, with the number of the others in one further row: an attacker cannot fill the log.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
import unicodedata
import uuid
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from ipaddress import ip_address
from typing import Literal, TypeVar

from mcp_server.audit import (
    AuditReason,
    AuditRecord,
    AuditStore,
    AuditUnavailable,
    Effect,
    Outcome,
    Phase,
)
from mcp_server.gate.charging import MAX_QUERIES, give_back, query_with_charges
from mcp_server.gate.errors import (
    Limited,
    Refused,
    audit_unavailable,
    counters_unavailable,
    policy_unavailable,
)
from mcp_server.gate.recorder import shielded
from mcp_server.identity.directory import DirectoryUnavailable, DirectoryUser, SignInRefused
from mcp_server.infrastructure import telemetry
from mcp_server.policy import (
    Charge,
    Context,
    Counters,
    CountersUnavailable,
    PolicyEngine,
    PolicyUnavailable,
    SignInInput,
)
from mcp_server.redaction import redact_arguments

__all__ = ["Attempt", "SignIns", "canonical_user"]

_METHOD = "sign_in"
_PERIOD_S = 60.0
_ROWS_OF_ADDRESS = 10  # rows about failures of one address in a period
_MAX_ADDRESSES = 4096  # further addresses in a period are counted together
# For how long a node refuses further failures of an address without asking again. Less than the window
# of a limit, so that changed policies count soon.
_REMEMBERED_S = 10.0

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Attempt:
    """An attempt to sign in.

    Attributes:
        method: as in SignInInput.
        claimed: who is claimed, for the audit log: nothing of it was verified.
        ip: the client's address as canonical text.
    """

    method: Literal["password", "token"]
    claimed: Mapping[str, str]
    ip: str
    user_agent: str
    request_id: str
    transport: Literal["mcp", "rest"]
    started: float = field(default_factory=time.perf_counter)


def canonical_user(name: str) -> str:
    """Return the text under which attempts with a name are counted.

    Directories ignore case, compatibility forms and repeated spaces, and some ignore accents: all names
    that one of them takes for the same user have one text.
    """
    decomposed = unicodedata.normalize("NFKD", name)
    letters = "".join(each for each in decomposed if not unicodedata.combining(each))
    return " ".join(letters.casefold().split())


class SignIns:
    """Takes attempts to sign in through policy, counters and audit log.

    Args:
        node: this node's name.
    """

    def __init__(
        self, *, node: str, policy: PolicyEngine, counters: Counters, audit: AuditStore
    ) -> None:
        self._node = node
        self._policy = policy
        self._counters = counters
        self._audit = audit
        self._rows: Counter[str] = Counter()
        self._limited: OrderedDict[str, tuple[float, Limited]] = OrderedDict()
        self._task: asyncio.Task[None] | None = None
        # From the start: no rate shows the first of a series that begins with it.
        for method in ("password", "token"):
            for result in ("refused", "limited", "denied", "unavailable"):
                telemetry.SIGN_INS.labels(method, result)

    async def start(self) -> None:
        """Start to write what was left out, once a minute."""
        self._task = asyncio.create_task(self._write_left_out(), name="sign-ins")

    async def stop(self) -> None:
        """Write what was left out so far."""
        task, self._task = self._task, None
        if task is None:
            return
        task.cancel()
        await asyncio.wait([task])
        await self._record_left_out()

    async def with_password(
        self, attempt: Attempt, check: Callable[[], Awaitable[DirectoryUser]]
    ) -> DirectoryUser:
        """Return the user if the policy permits the attempt and `check` accepts its password.

        Raises:
            Limited: too many attempts have failed. Refused: the policy denies the attempt, or it cannot
                be counted or recorded. NodeUnavailable: OPA does not answer.
            SignInRefused, DirectoryUnavailable: as `check`.
        """
        entry = uuid.uuid4().hex
        try:
            charges, may_go_unrecorded = await self._admitted(attempt, entry)
            user = await check()
        except Refused as refusal:
            await self._refused(attempt, refusal.outcome, _audited(refusal))
            raise
        except SignInRefused as refusal:
            await self._refused(attempt, "refused", [AuditReason(refusal.reason)])
            raise
        except DirectoryUnavailable as error:
            telemetry.log.error("directory_unavailable", error=str(error))
            await give_back(self._counters, entry, charges)
            await self._refused(attempt, "unavailable", [AuditReason("directory_unavailable")])
            raise
        await give_back(self._counters, entry, charges)
        await self._succeeded(attempt, user, may_go_unrecorded=may_go_unrecorded)
        return user

    async def token_refused(self, attempt: Attempt, reason: str, *, counted: bool = True) -> None:
        """Count and record a request whose token is not valid.

        A valid token is not affected: nothing is counted before a token was found to be invalid.

        Args:
            reason: why, for the audit log; holds no part of the token.
            counted: False for a token that nobody guessed: it is recorded only.

        Raises:
            Limited: too many tokens from this address were not valid.
        """
        limited = self._known_limit(attempt.ip) if counted else None
        if limited is None and counted:
            try:
                await self._admitted(attempt, uuid.uuid4().hex)
            except Limited as refusal:
                self._remember(attempt.ip, refusal)
                limited = refusal
            except Refused as refusal:
                # It is refused with or without the count.
                telemetry.log.warning("failed_token_not_counted", error=str(refusal))
        if limited is not None:
            await self._refused(attempt, limited.outcome, _audited(limited))
            raise limited
        await self._refused(attempt, "refused", [AuditReason("invalid_token", reason)])

    async def _admitted(self, attempt: Attempt, entry: str) -> tuple[Sequence[Charge], bool]:
        """Charge the attempt, and return its charges if the policy permits it with them.

        The second value is whether the policy permitted it knowing that the audit log is down.
        """
        charges: tuple[Charge, ...] = ()
        policy_input = self._input(attempt)
        try:
            for _ in range(MAX_QUERIES):
                answer = await query_with_charges(
                    self._counters, entry, charges, partial(self._policy.sign_in, policy_input)
                )
                if answer.effect == "allow":
                    return charges, policy_input.context.audit == "down"
                if answer.effect == "limited":
                    raise Limited(answer)
                if answer.effect != "count":
                    context = policy_input.context
                    down = "down" in (context.counters, context.audit)
                    raise Refused(answer.reasons, retryable=down)
                charges = tuple(answer.charges)
        except CountersUnavailable as error:
            telemetry.log.warning("counters_unavailable", error=str(error))
            raise counters_unavailable() from error
        except PolicyUnavailable as error:
            telemetry.log.error("policy_unavailable", error=str(error))
            raise policy_unavailable(error) from error
        raise policy_unavailable(PolicyUnavailable("the policy names other charges each time"))

    def _input(self, attempt: Attempt) -> SignInInput:
        return SignInInput(
            method=attempt.method,
            user=canonical_user(attempt.claimed.get("user", "")),
            context=Context(
                ip=attempt.ip,
                time=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
                node=self._node,
                request_id=attempt.request_id,
                transport=attempt.transport,
                counters="up" if self._counters.up else "down",
                audit="up" if self._audit.healthy else "down",
            ),
        )

    def _known_limit(self, ip: str) -> Limited | None:
        until, limited = self._limited.get(ip, (0.0, None))
        return limited if time.monotonic() < until else None

    def _remember(self, ip: str, limited: Limited) -> None:
        for_s = min(limited.retry_after_ms / 1000, _REMEMBERED_S)
        self._limited[ip] = (time.monotonic() + for_s, limited)
        self._limited.move_to_end(ip)
        if len(self._limited) > _MAX_ADDRESSES:
            self._limited.popitem(last=False)

    # The audit log ----------------------------------------------------------------------------------

    async def _succeeded(
        self, attempt: Attempt, user: DirectoryUser, *, may_go_unrecorded: bool
    ) -> None:
        telemetry.SIGN_INS.labels(attempt.method, "ok").inc()
        record = self._record(attempt, "allow", "ok", (), user)
        try:
            await shielded(self._audit.commit(record))
        except AuditUnavailable as error:
            if may_go_unrecorded:
                telemetry.UNRECORDED.inc()
                return
            raise audit_unavailable() from error

    async def _refused(
        self, attempt: Attempt, outcome: Outcome, reasons: Sequence[AuditReason]
    ) -> None:
        telemetry.SIGN_INS.labels(attempt.method, outcome).inc()
        known = attempt.ip in self._rows or len(self._rows) < _MAX_ADDRESSES
        address = attempt.ip if known else ""
        self._rows[address] += 1
        if self._rows[address] > _ROWS_OF_ADDRESS:
            return
        telemetry.log.warning(
            "sign_in_refused",
            request_id=attempt.request_id,
            method=attempt.method,
            ip=attempt.ip,
            outcome=outcome,
            reasons=[reason.code for reason in reasons],
        )
        effect: Effect = "limited" if outcome == Limited.outcome else "deny"
        await self._commit(self._record(attempt, effect, outcome, reasons, None))

    def _record(
        self,
        attempt: Attempt,
        effect: Effect,
        outcome: Outcome,
        reasons: Sequence[AuditReason],
        user: DirectoryUser | None,
    ) -> AuditRecord:
        return AuditRecord(
            time=datetime.now(UTC),
            event_id=uuid.uuid4(),
            request_id=attempt.request_id,
            phase=Phase.OUTCOME,
            node=self._node,
            transport=attempt.transport,
            method=_METHOD,
            user_id=None if user is None else user.id,
            tenant=None if user is None else user.tenant,
            arguments=redact_arguments({"method": attempt.method, "claimed": attempt.claimed}),
            client_ip=ip_address(attempt.ip),
            user_agent=attempt.user_agent,
            effect=effect,
            reasons=reasons,
            policy_revision=self._policy.revision,
            duration_ms=(time.perf_counter() - attempt.started) * 1000,
            outcome=outcome,
        )

    async def _write_left_out(self) -> None:
        while True:
            await asyncio.sleep(_PERIOD_S)
            await self._record_left_out()

    async def _record_left_out(self) -> None:
        rows, self._rows = self._rows, Counter()
        for address, number in rows.items():
            if number > _ROWS_OF_ADDRESS:
                await self._commit(self._left_out(address, number - _ROWS_OF_ADDRESS))

    def _left_out(self, address: str, number: int) -> AuditRecord:
        return AuditRecord(
            time=datetime.now(UTC),
            event_id=uuid.uuid4(),
            request_id=uuid.uuid4().hex,
            phase=Phase.OUTCOME,
            node=self._node,
            transport="rest",
            method=_METHOD,
            arguments=redact_arguments({"rows_left_out": number, "in_seconds": _PERIOD_S}),
            client_ip=ip_address(address) if address else None,
            effect="deny",
            reasons=[AuditReason("rows_left_out")],
            policy_revision=self._policy.revision,
            outcome="refused",
        )

    async def _commit(self, record: AuditRecord) -> None:
        """Record a refusal where that is possible: it stands with or without its row."""
        with contextlib.suppress(AuditUnavailable):  # the store reports lost rows by itself
            await self._audit.commit(record)


def _audited(refusal: Refused) -> list[AuditReason]:
    return [AuditReason(**reason.model_dump()) for reason in refusal.reasons]
