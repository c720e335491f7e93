"""Infrastructure that every part of the server uses: the database, telemetry and TLS."""
