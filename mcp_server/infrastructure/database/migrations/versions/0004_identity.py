"""API keys, revoked tokens, and who called in audit.questions (version 2 of the decision protocol).

The server's role reads API keys and writes only when one was last used; it reads revocations. An input
without counts is the same in both versions of the protocol, and older rows lack the issuer: all their
tokens were signed with the shared secret. Compatible with the previous version of the server, which does
not know the schema identity.
"""

from __future__ import annotations

from alembic import op

revision = "0004"
down_revision = "0003"

_API_KEYS = (
    "CREATE SCHEMA identity",
    # No key is stored, only the SHA-256 of its secret.
    """
    CREATE TABLE identity.api_keys (
        id           text PRIMARY KEY CHECK (id ~ '^[a-z2-7]{12}$'),
        secret_hash  bytea NOT NULL CHECK (octet_length(secret_hash) = 32),
        account      text NOT NULL CHECK (account <> ''),
        tenant       text NOT NULL CHECK (tenant <> ''),
        roles        text[] NOT NULL DEFAULT '{}',
        scopes       text[] NOT NULL DEFAULT '{}',
        networks     cidr[] NOT NULL DEFAULT '{}',
        created_at   timestamptz NOT NULL DEFAULT now(),
        created_by   text NOT NULL,
        expires_at   timestamptz NOT NULL CHECK (expires_at > created_at),
        revoked_at   timestamptz,
        last_used_at timestamptz
    )
    """,
    "GRANT USAGE ON SCHEMA identity TO mcp_server",
    "GRANT SELECT ON identity.api_keys TO mcp_server",
    "GRANT UPDATE (last_used_at) ON identity.api_keys TO mcp_server",
)

_REVOCATIONS = (
    # A row revokes the tokens that match every column which is not null. Without a token_id, only those
    # that were issued up to revoked_at.
    """
    CREATE TABLE identity.revocations (
        id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        issuer      text CHECK (issuer <> ''),
        user_id     text CHECK (user_id <> ''),
        token_id    text CHECK (token_id <> ''),
        revoked_at  timestamptz NOT NULL DEFAULT now(),
        expires_at  timestamptz NOT NULL,
        revoked_by  text NOT NULL,
        reason      text NOT NULL,
        CHECK (num_nonnulls(issuer, user_id, token_id) > 0)
    )
    """,
    "CREATE INDEX revocations_expires_at_idx ON identity.revocations (expires_at)",
    "GRANT SELECT ON identity.revocations TO mcp_server",
    """
    COMMENT ON TABLE identity.revocations IS
    'Written by mcpctl token revoke. After expires_at no token that a row revokes is accepted anyway.'
    """,
)

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
                'audit', judged -> 'audit')
        ) AS question
    FROM audit.events
    WHERE judged IS NOT NULL
"""


def upgrade() -> None:
    """Create the schema identity; replace the view audit.questions."""
    for statement in (*_API_KEYS, *_REVOCATIONS, _QUESTIONS):
        op.execute(statement)


def downgrade() -> None:
    """Refuse: migrations go forward only; restore a backup instead."""
    raise NotImplementedError("migrations go forward only")
