"""What carries publications between nodes and keeps their history: one Protocol, one file a backend."""
