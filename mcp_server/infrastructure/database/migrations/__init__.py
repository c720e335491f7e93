"""Alembic migrations of the schemas audit, cmdb and configuration: forward only.

Every revision must leave the schema usable by the version of the server that runs during the
upgrade: add first, remove one release later.
"""
