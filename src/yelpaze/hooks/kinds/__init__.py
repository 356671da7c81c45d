"""The kinds of endpoints, one file each."""
