"""Metrics, logs and traces: read the rooms' statistics and events; no room below imports this."""
