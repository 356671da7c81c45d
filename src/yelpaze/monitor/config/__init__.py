"""Files with Gatus's names to a `MonitorConfig`, or every mistake with file and line."""
