"""The composition root: the only place that builds backends from options. No behaviour of its own."""
