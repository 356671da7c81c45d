"""Durable delivery of messages to endpoints: signed webhooks, chat, e-mail."""
