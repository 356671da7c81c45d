"""The engine: HTTP over libcurl, an outcome for every request.

engine.py     the public face: send, gather, stream
call.py       one request's way through the policies, attempt by attempt
transport.py  libcurl's multi interface on one private epoll
handle.py     easy handles: their options, and what they collect
resolver.py   names to addresses, outside libcurl
"""
