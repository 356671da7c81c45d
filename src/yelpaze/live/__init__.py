"""The live gateway: WebSocket and server-sent events for very many readers.

transports/   bytes to and from a client: HTTP, WebSocket, event streams, ASGI
sessions/     what a client says and may; they know no socket and no clock
server_api/   what other services ask for over HTTP
core/         one process of the gateway: who listens to what, and the way of a publication to them
brokers/      what is kept, and what the nodes share: memory, Redis
protocol/     values, codes, messages and frames: parsed and written
config.py     the settings as values; settings.py reads them

Needs the extra `live`: pip install 'yelpaze[live]'.
"""
