"""The API of the monitor: Gatus's paths, and what it has not."""
