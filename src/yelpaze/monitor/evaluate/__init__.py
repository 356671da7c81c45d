"""Results to transitions: the fold, its snapshots, incidents."""
