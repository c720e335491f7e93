"""The health of a node: the check (`readiness`), the HTTP routes (`routes`), the client (`probe`)."""
