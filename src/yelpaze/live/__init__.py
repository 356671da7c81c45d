"""The live gateway: WebSocket and server-sent events for very many readers.

    server.py → http.py ─→ websocket.py ─→ centrifugo.py ┐
                        ├→ websocket.py ─→ plain.py      ├→ client.py → hub.py → broker: memory.py, redis.py
                        ├→ events.py ───→ plain.py       ┘
                        └→ api.py

`node.py` is one process of it; sessions (`client`, `centrifugo`, `plain`) know no socket and no clock.
Needs the extra `live`: pip install 'yelpaze[live]'.
"""
