"""The API of hooks."""
