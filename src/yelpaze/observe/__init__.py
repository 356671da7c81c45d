"""Metrics, logs and traces: read the rooms' statistics and hooks; no room below imports this."""
