"""Serving over one protocol: an HTTP server with a web page, a door for agents (MCP), many processes (Ray Serve)."""
