"""Connections: HTTP, WebSocket, server-sent events and ASGI."""
