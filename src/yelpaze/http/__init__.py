"""The engine: HTTP over libcurl, an outcome for every request.

engine.py     the public face: send, gather, stream
core.py       what all calls of one engine share
call.py       one request's way through the policies, attempt by attempt
exchange.py   one attempt: an address, a transfer, its timers
retry_decision.py  what follows a failed attempt
host.py       the policy states of one host
transport.py  libcurl's multi interface on one private epoll
handle.py     easy handles: their options, and what they collect
resolver.py   names to addresses, outside libcurl
"""
