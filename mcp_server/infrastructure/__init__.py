"""What every part of the server stands on: the database, telemetry and TLS."""
