"""Clients by what they speak: their rights, commands and subscriptions. No sockets, no clock."""
