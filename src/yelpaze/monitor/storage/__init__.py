"""Results in the store: raw by day, sums by minute, hour and day."""
