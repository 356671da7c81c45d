"""Measured on this machine: the ladder from a plain loop to all cores."""
