"""Where requests enter: MCP (Streamable HTTP and stdio) and REST. All of them call the same gate."""
