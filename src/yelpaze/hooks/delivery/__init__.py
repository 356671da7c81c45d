"""Delivering: queues of endpoints, attempts and what becomes of them."""
