"""The charges that the policy is likely to name for a call.

The policy decides what a call is charged to. Calls of the same shape are charged to the same windows as
long as the policies stay the same, so the gate charges these before it asks.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TypeAlias

from mcp_server.policy import Authorization, Charge, DecisionInput

__all__ = ["Predictions"]

_SIZE = 8192
_Shape: TypeAlias = tuple[object, ...]


class Predictions:
    """The charges of the last allowed call of each shape, the most recently used ones.

    A shape is the policy revision, the subject with its roles, groups, scopes and client, the client
    program, the method and the resource.
    """

    def __init__(self) -> None:
        self._charges: OrderedDict[_Shape, tuple[Charge, ...]] = OrderedDict()

    def of(self, policy_input: DecisionInput, revision: str) -> tuple[Charge, ...]:
        """Return the charges to expect; none where nothing is known or nothing can be counted."""
        if policy_input.context.counters != "up":
            return ()
        shape = _shape(policy_input, revision)
        charges = self._charges.get(shape)
        if charges is None:
            return ()
        self._charges.move_to_end(shape)
        return charges

    def learn(self, policy_input: DecisionInput, answer: Authorization) -> None:
        """Keep the charges of an allowed call; forget those of a call that is refused."""
        shape = _shape(policy_input, answer.revision)
        if answer.effect != "allow" or not answer.charges:
            self._charges.pop(shape, None)
            return
        self._charges[shape] = tuple(answer.charges)
        if len(self._charges) > _SIZE:
            self._charges.popitem(last=False)


def _shape(policy_input: DecisionInput, revision: str) -> _Shape:
    subject, resource = policy_input.subject, policy_input.resource
    return (
        revision,
        subject.id,
        subject.tenant,
        subject.issuer,
        subject.client_id,
        subject.actor,
        subject.roles,
        subject.scopes,
        subject.groups,
        policy_input.client_info,
        policy_input.action.name,
        resource.type,
        resource.id,
    )
