"""Sources of rows and sinks of results: one file a format, one Protocol for all."""
