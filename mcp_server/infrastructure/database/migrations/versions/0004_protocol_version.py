"""The inputs in audit.questions have version 2 of the decision protocol.

Version 2 has one query with the counts in place of two queries. An input without counts is the same in
both versions, so older rows can be queried again as well. Compatible with the previous version of the
server.
"""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0003"

_QUESTIONS = """
    CREATE OR REPLACE VIEW audit.questions WITH (security_invoker = true) AS
    SELECT time, event_id, request_id, phase, effect, policy_revision,
        jsonb_build_object(
            'version', 2,
            'subject', jsonb_build_object(
                'type', 'user',
                'id', user_id,
                'properties', jsonb_build_object(
                    'tenant', tenant,
                    'roles', judged #> '{subject,roles}',
                    'groups', judged #> '{subject,groups}',
                    'scopes', judged #> '{subject,scopes}',
                    'token_id', judged #> '{subject,jti}')),
            'action', jsonb_build_object(
                'name', method,
                'properties', jsonb_build_object(
                    'arguments', arguments, 'withheld', judged -> 'withheld')),
            'resource', judged -> 'resource',
            'context', jsonb_build_object(
                'ip', host(client_ip),
                'time', judged -> 'time',
                'node', node,
                'request_id', request_id,
                'transport', transport,
                'counters', judged -> 'counters',
                'audit', judged -> 'audit')
        ) AS question
    FROM audit.events
    WHERE judged IS NOT NULL
"""


def upgrade() -> None:
    """Replace the view audit.questions."""
    op.execute(_QUESTIONS)


def downgrade() -> None:
    """Refuse: migrations go forward only; restore a backup instead."""
    raise NotImplementedError("migrations go forward only")
