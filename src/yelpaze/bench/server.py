"""A demo server for a measurement: prints its URL, serves until stdin closes.

Run as `python -m yelpaze.bench.server [CERTIFICATE KEY]`. Uses uvloop where it is installed,
so that the client stays the slower side.
"""

import asyncio
import ssl
import sys

from yelpaze.demo.server import Options, Server


async def main(certificate: tuple[str, ...]) -> None:
    """Serve until the parent closes our stdin."""
    tls = None
    if certificate:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(*certificate)
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(sys.stdin.fileno(), stopping.set)

    server = Server(Options())
    host, port = await server.start("127.0.0.1", 0, tls=tls)
    print(f"{'https' if tls else 'http'}://{host}:{port}", flush=True)  # noqa: T201
    await stopping.wait()
    await server.close()


if __name__ == "__main__":
    try:
        import uvloop
    except ImportError:
        asyncio.run(main(tuple(sys.argv[1:])))
    else:
        uvloop.run(main(tuple(sys.argv[1:])))
