"""What is in the store: applications, endpoints, messages, deliveries, attempts."""
