"""Readiness: OPA decides two known inputs correctly, Redis answers, and audit rows are committed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from mcp_server.audit.store import AuditStore
from mcp_server.infrastructure import telemetry
from mcp_server.policy import Canary, Counters, PolicyEngine, PolicyUnavailable

__all__ = ["Monitor", "Readiness"]

_INTERVAL_S = 1.0


@dataclass(frozen=True, slots=True)
class Readiness:
    """The state of each part, `True` for up, and the policy's revision and scopes for clients.

    Attributes:
        revision: the policy revision.
        scopes: the OAuth scopes that the policy data define.
        initial_scope: the least of them with which tools can be listed, or "".
    """

    policy: bool = False
    counters: bool = False
    audit: bool = False
    revision: str = ""
    scopes: tuple[str, ...] = ()
    initial_scope: str = ""

    @property
    def ready(self) -> bool:
        """Whether a call can be decided, counted and recorded."""
        return self.policy and self.counters and self.audit

    @property
    def status(self) -> str:
        """`ready` or `not_ready`."""
        return "ready" if self.ready else "not_ready"

    def to_json(self) -> dict[str, object]:
        """Return the state of each part and the policy revision, for operators."""
        parts = {"policy": self.policy, "counters": self.counters, "audit": self.audit}
        return {
            "status": self.status,
            "checks": {name: "up" if up else "down" for name, up in parts.items()},
            "policy_revision": self.revision,
        }


class Monitor:
    """Checks every part once a second, and keeps the latest result.

    Args:
        on_new_revision: called when another policy revision has come into force.
    """

    def __init__(
        self,
        *,
        policy: PolicyEngine,
        counters: Counters,
        audit: AuditStore,
        on_new_revision: Callable[[], Awaitable[None]],
    ) -> None:
        self._policy = policy
        self._counters = counters
        self._audit = audit
        self._on_new_revision = on_new_revision
        self._task: asyncio.Task[None] | None = None
        self._revision = ""  # the latest known one: a check that fails has none
        self.latest = Readiness()

    async def start(self) -> None:
        """Check once, then go on in the background."""
        await self.check()
        self._task = asyncio.create_task(self._run(), name="readiness")

    async def stop(self) -> None:
        """Stop checking."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def check(self) -> Readiness:
        """Check every part now, and return (and keep) the result."""
        canary, counters = await asyncio.gather(self._canary(), self._counters.probe())
        revision = "" if canary is None else canary.revision
        before = self.latest
        self.latest = Readiness(
            policy=canary is not None and canary.allow_ok and canary.deny_ok,
            counters=counters,
            audit=self._audit.healthy,
            revision=revision,
            # While OPA is down, clients get the last known values.
            scopes=before.scopes if canary is None else tuple(canary.scopes),
            initial_scope=before.initial_scope if canary is None else canary.initial_scope,
        )
        telemetry.READY.set(self.latest.ready)
        if self.latest.ready != before.ready:
            telemetry.log.info("readiness", **self.latest.to_json())
        if revision and revision != self._revision:
            known, self._revision = self._revision, revision
            telemetry.publish_revision(revision)
            telemetry.log.info("policy_revision", revision=revision)
            if known:
                await self._on_new_revision()
        return self.latest

    async def _canary(self) -> Canary | None:
        try:
            return await self._policy.canary()
        except PolicyUnavailable:
            return None

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(_INTERVAL_S)
            try:
                await self.check()
            except Exception:  # noqa: BLE001 - whatever it was, the latest result may be wrong now
                telemetry.log.exception("readiness_unknown")
                self.latest = Readiness()
                telemetry.READY.set(0)
