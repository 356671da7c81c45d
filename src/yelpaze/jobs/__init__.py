"""Rows from a source through a flow to a sink: checkpoints, retry, records, reports."""
