"""The status page: rendered here, updated live through the gateway."""
