"""`python -m mcp_server` is `mcpctl`."""

from mcp_server.cli import main

if __name__ == "__main__":
    main()
