"""Addresses of name servers, as settings have them."""

import ipaddress


def server_of(url: str) -> tuple[str, int]:
    """Address and port of a name server: `8.8.8.8`, `[::1]:5353`. Raises ValueError.

    >>> server_of("8.8.8.8"), server_of("[::1]:5353")
    (('8.8.8.8', 53), ('::1', 5353))
    """
    text = url.removeprefix("udp://").removeprefix("tcp://")
    head, found, port = text.rpartition(":")
    if not found or text.endswith("]") or (text.count(":") > 1 and not head.endswith("]")):
        head, port = text, "53"
    number = int(port)
    if not 0 < number < 65_536:  # noqa: PLR2004
        raise ValueError(f"there is no port {number}")
    return str(ipaddress.ip_address(head.strip("[]"))), number
