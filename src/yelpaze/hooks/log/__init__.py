"""The contents of the store: applications, endpoints, messages, deliveries, attempts."""
