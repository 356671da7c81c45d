"""Many URLs from the shell: globs, inputs, outputs, outcomes."""
