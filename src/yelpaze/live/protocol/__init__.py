"""What is said: values, codes, messages and their bytes. No state."""
