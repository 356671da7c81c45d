"""Local services with set delays and faults, to try everything on."""
