"""The policy's input for each request, so that an auditor can repeat the query.

Compatible with the previous version of the server: its rows have no such input and are not in the view.
"""

from __future__ import annotations

from alembic import op

revision = "0003"
down_revision = "0002"

_QUESTIONS = (
    "ALTER TABLE audit.events ADD COLUMN judged jsonb",
    """
    COMMENT ON COLUMN audit.events.judged IS
    'What the policy was told besides the other columns: see audit.questions'
    """,
    # security_invoker: the view shows no rows to a role that may not read the table.
    """
    CREATE VIEW audit.questions WITH (security_invoker = true) AS
    SELECT time, event_id, request_id, phase, effect, policy_revision,
        jsonb_build_object(
            'version', 1,
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
    """,
    """
    COMMENT ON VIEW audit.questions IS
    'The input of each decision. Arguments are as the log keeps them: cut when very long, and masked
    where they hold a secret, where the policy was told null.'
    """,
)


def upgrade() -> None:
    """Change the schema audit."""
    for statement in _QUESTIONS:
        op.execute(statement)


def downgrade() -> None:
    """Refuse: migrations go forward only; restore a backup instead."""
    raise NotImplementedError("migrations go forward only")
