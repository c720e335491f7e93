"""The doors: MCP (Streamable HTTP and stdio) and REST. All lead into the same gate."""
