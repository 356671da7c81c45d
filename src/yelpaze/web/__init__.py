"""HTTP: JSON API over the rooms below."""
