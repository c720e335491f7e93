"""What client programs report of themselves, in the policy's input for each request.

Compatible with the previous version of the server: its rows have no such report.
"""

from __future__ import annotations

from alembic import op

revision = "0008"
down_revision = "0007"

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
                    'token_id', judged #> '{subject,jti}',
                    'issuer', coalesce(judged #> '{subject,issuer}', '"shared-secret"'),
                    'client_id', coalesce(judged #> '{subject,client_id}', '""'),
                    'actor', coalesce(judged #> '{subject,actor}', '""'),
                    'networks', coalesce(judged #> '{subject,networks}', '[]'))),
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
                'audit', judged -> 'audit',
                'client_info',
                    coalesce(judged -> 'client_info', '{"name": "", "version": ""}'))
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
